"""Build the environment that an episode needs, in whichever process."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from rftf_torchrl.calvin.env import CalvinEnv
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.starts import States
from rftf_torchrl.calvin.state_bank import StateBank
from rftf_torchrl.envs.episodes import Episode, Split


@dataclass(frozen=True)
class CalvinFactory:
    """A picklable function from an :class:`~rftf_torchrl.Episode` to its environment.

    One environment plays all tasks of the scene, so a worker has one simulator for any number of
    tasks.

    Attributes:
        split: see :class:`CalvinEnv`.
        scene: see :class:`CalvinEnv`.
        states: see :class:`CalvinEnv`; must be picklable where there are worker processes.
        image_size: see :class:`CalvinEnv`.
        wrist_size: see :class:`CalvinEnv`.
        depth: see :class:`CalvinEnv`.
        chunk_size: see :class:`CalvinEnv`.
        horizon: see :class:`CalvinEnv`.
        sentences: see :class:`CalvinEnv`.
        write_text: see :class:`CalvinEnv`.
    """

    split: Split
    scene: Scene = "D"
    states: States | StateBank | None = field(default=None, compare=False)
    image_size: int | None = 64
    wrist_size: int | None = None
    depth: bool = False
    chunk_size: int | None = None
    horizon: int | None = None
    sentences: Mapping[str, Sequence[str]] | None = field(default=None, compare=False)
    write_text: bool = False

    def environment_of(self, episode: Episode) -> Hashable:
        """The scene: episodes of all tasks share one environment."""
        return self.scene

    def __call__(self, episode: Episode) -> CalvinEnv:
        """The scene's environment, set to the episode's task and instruction."""
        return CalvinEnv(episode.task, instruction=episode.instruction, **vars(self))
