"""Where chains are played, as picklable descriptions that worker processes build from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tensordict.nn import TensorDictModuleBase
from torchrl.envs.transforms import Transform

from rftf_torchrl.calvin.chains.fingerprint import transform_label
from rftf_torchrl.calvin.chains.protocol import policy_digest, sentences_label
from rftf_torchrl.calvin.chains.stages import ControllerStage, PolicyStage
from rftf_torchrl.envs.policy_inputs import PolicyInputEnv

_RENDERER = "PyBullet's TinyRenderer on the CPU"


@dataclass(frozen=True)
class PolicyStageFactory:
    """Builds a :class:`PolicyStage`.

    Attributes:
        make_env: builds the environment.
        policy: the policy on the CPU.
        limit: control steps for each task.
        deterministic: mean actions instead of samples.
        sentences: see :class:`PolicyStage`.
        transform: the policy's ``observation_transform()``, where it has one.
    """

    make_env: Callable[[], Any]
    policy: TensorDictModuleBase
    limit: int
    deterministic: bool
    sentences: Mapping[str, Sequence[str]] | None
    transform: Transform | None = None

    def __call__(self) -> PolicyStage:
        """A new stage with its own simulator."""
        env = self.make_env()
        if self.transform is not None:
            env = PolicyInputEnv(env, self.transform)
        return PolicyStage(env, self.policy, self.limit, self.deterministic, self.sentences)

    @property
    def privileged(self) -> str | None:
        """Who sees the simulator's state: a policy that reads no picture."""
        return None if self._reads_pictures else "the policy"

    @property
    def _reads_pictures(self) -> bool:
        raw = [] if self.transform is None else self.transform.in_keys
        return any("image" in str(key) for key in [*self.policy.in_keys, *raw])

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        return {
            "policy": policy_digest(self.policy),
            "transform": transform_label(self.transform),
            "env": _name(self.make_env),
            "deterministic": self.deterministic,
            "sentences": sentences_label(self.sentences),
            "renderer": _RENDERER if self._reads_pictures else "none",
        }


@dataclass(frozen=True)
class ControllerStageFactory:
    """Builds a :class:`ControllerStage`.

    Attributes:
        make_simulator: builds the simulator.
        make_controller: builds the controller.
        limit: control steps for each task.
    """

    make_simulator: Callable[[], Any]
    make_controller: Callable[[], Any]
    limit: int

    def __call__(self) -> ControllerStage:
        """A new stage with its own simulator."""
        return ControllerStage(self.make_simulator(), self.make_controller, self.limit)

    @property
    def privileged(self) -> str:
        """Who sees the simulator's state."""
        return "the controller"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        return {
            "controller": _name(self.make_controller),
            "simulator": _name(self.make_simulator),
            "renderer": "none",
        }


def _name(function: Callable[..., Any]) -> str:
    """A function with its bound arguments, without addresses in memory."""
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())]
        return f"{_name(function.func)}({', '.join(given)})"
    return getattr(function, "__qualname__", type(function).__qualname__)
