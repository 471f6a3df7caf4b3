"""Build the environment that an episode needs, in whichever process."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from rftf_torchrl.envs.episodes import Episode, Split
from rftf_torchrl.libero.env import LiberoEnv
from rftf_torchrl.libero.simulator import Pictures
from rftf_torchrl.libero.starts import Starts


@dataclass(frozen=True)
class LiberoFactory:
    """A picklable function from an :class:`~rftf_torchrl.Episode` to its environment.

    Attributes:
        tasks: names of the run's tasks.
        environments: how many environments they share: task i is played in environment i modulo
            this. Each has ``kept`` simulators. A process that has nothing to do opens another one's
            environment once more.
        split: see :class:`LiberoEnv`.
        suite: see :class:`LiberoEnv`.
        starts: see :class:`LiberoEnv`.
        image_size: see :class:`LiberoEnv`.
        wrist: see :class:`LiberoEnv`.
        pictures: see :class:`LiberoEnv`.
        chunk_size: see :class:`LiberoEnv`.
        horizon: see :class:`LiberoEnv`.
        max_steps: see :class:`LiberoEnv`.
        kept: see :class:`LiberoEnv`.
        write_text: see :class:`LiberoEnv`.
    """

    tasks: tuple[str, ...]
    environments: int
    split: Split
    suite: str = "libero_object"
    starts: Starts | None = None
    image_size: int | None = 128
    wrist: bool = False
    pictures: Pictures = "exact"
    chunk_size: int | None = None
    horizon: int = 300
    max_steps: int | None = None
    kept: int = 1
    write_text: bool = False

    def environment_of(self, episode: Episode) -> Hashable:
        """The number of the environment, which episodes of several tasks share."""
        return self.tasks.index(episode.task) % self.environments

    def __call__(self, episode: Episode) -> LiberoEnv:
        """The environment, set to the episode's task and instruction."""
        settings = {k: v for k, v in vars(self).items() if k not in ("tasks", "environments")}
        return LiberoEnv(episode.task, instruction=episode.instruction, **settings)
