"""Environments that write what a policy reads, beside the raw observation."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from tensordict.utils import NestedKey
from torchrl.envs import Compose, EnvBase, ExcludeTransform, Transform, TransformedEnv

from rftf_torchrl import keys
from rftf_torchrl.envs.episodes import Episode, environment_of


class PolicyInputEnv(TransformedEnv):
    """An environment with a policy's observation transform, from which no string comes out.

    Everything else of the environment inside (``set_task``, ``picture``, ...) is reached through
    it.

    Args:
        env: writes ``"language_instruction"`` if the transform reads it.
        transform: a policy's ``observation_transform()``; it is copied.

    Attributes:
        input_keys: what the transform wrote. Nothing but the policy reads it, so that
            :func:`~rftf_torchrl.run_episodes` keeps it of the states in which the policy
            decided, and not once more under ``"next"``.
    """

    def __init__(self, env: EnvBase, transform: Transform) -> None:
        super().__init__(
            env, Compose(transform.clone(), ExcludeTransform(keys.INSTRUCTION_TEXT, inverse=False))
        )
        raw = set(env.observation_spec.keys(True))
        self.input_keys: list[NestedKey] = [
            key for key in self.observation_spec.keys(True) if key not in raw
        ]


@dataclass(frozen=True)
class PolicyInputFactory:
    """A picklable function from an :class:`Episode` to a :class:`PolicyInputEnv`.

    Attributes:
        make_env: builds the environment inside; a dataclass with a field ``write_text``, which is
            switched on.
        transform: a policy's ``observation_transform()``.
    """

    make_env: Callable[[Episode], EnvBase]
    transform: Transform = field(compare=False)

    def __post_init__(self) -> None:
        if hasattr(self.make_env, "write_text"):
            speaking = replace(self.make_env, write_text=True)  # type: ignore[type-var]
            object.__setattr__(self, "make_env", speaking)

    def environment_of(self, episode: Episode) -> Hashable:
        """What names the environment of an episode, see :func:`run_episodes`."""
        return environment_of(self.make_env, episode)

    def __call__(self, episode: Episode) -> PolicyInputEnv:
        """The episode's environment."""
        return PolicyInputEnv(self.make_env(episode), self.transform)
