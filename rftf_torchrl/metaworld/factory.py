"""Build the environment that an episode needs, in whichever process."""

from __future__ import annotations

from dataclasses import dataclass

from rftf_torchrl.envs.episodes import Episode, Split
from rftf_torchrl.metaworld.env import MetaWorldEnv


@dataclass(frozen=True)
class MetaWorldFactory:
    """A picklable function from an :class:`~rftf_torchrl.Episode` to its environment.

    Attributes:
        split: which initial states, ``"train"`` or ``"test"``.
        image_size: see :class:`MetaWorldEnv`.
        chunk_size: see :class:`MetaWorldEnv`.
        action_repeat: see :class:`MetaWorldEnv`.
        horizon: see :class:`MetaWorldEnv`.
        potential: see :class:`MetaWorldEnv`.
        write_text: see :class:`MetaWorldEnv`.
    """

    split: Split
    image_size: int | None = 64
    chunk_size: int | None = None
    action_repeat: int = 1
    horizon: int = 100
    potential: bool = False
    write_text: bool = False

    def __call__(self, episode: Episode) -> MetaWorldEnv:
        """The environment of the episode's task, with the episode's instruction."""
        return MetaWorldEnv(episode.task, instruction=episode.instruction, **vars(self))
