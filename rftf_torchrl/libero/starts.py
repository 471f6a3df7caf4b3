"""Where episodes begin: newly drawn from the tasks' regions, or at the official initial states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rftf_torchrl.envs.episodes import Split, check_split
from rftf_torchrl.libero.suites import STATES_PER_TASK, libero_states

_ROBOT = 9  # positions of seven joints and two fingers
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class LiberoStart:
    """Where an episode begins.

    Attributes:
        seed: from which LIBERO draws where fixtures stand and objects lie.
        state: simulator state [D] that is set after that; ``None`` keeps what was drawn.
    """

    seed: int
    state: np.ndarray | None = None


Starts: TypeAlias = Callable[[str, int], LiberoStart]
"""From a task's name and an episode's seed to the start; picklable for worker processes."""


@dataclass(frozen=True)
class FreshStarts:
    """Starts that LIBERO draws from the regions in a task's definition.

    Attributes:
        split: ``"train"`` or ``"test"``; the two never share a seed.

    Example:
        >>> FreshStarts("train")("any task", 3).seed, FreshStarts("test")("any task", 3).seed
        (6, 7)
    """

    split: Split

    def __post_init__(self) -> None:
        check_split(self.split)

    def __call__(self, task: str, seed: int) -> LiberoStart:
        """The start of an episode.

        Raises:
            ValueError: for a seed that is not in 0 ... 2**31 - 1.
        """
        if not 0 <= seed < 2**31:
            raise ValueError(f"an episode's seed must be in 0 ... 2**31 - 1, got {seed}")
        return LiberoStart(2 * seed + (self.split == "test"))


@dataclass(frozen=True)
class OfficialStarts:
    """The initial states of the official evaluation, of which an episode's seed is the number.

    A state says nothing of where fixtures stand, so the seed that places them counts too.

    Attributes:
        suite: the suite.
        first_seed: the seed for the fixtures at state 0.
        seed_step: by how much it rises with each state.
    """

    suite: str
    first_seed: int = 0
    seed_step: int = 0

    def __call__(self, task: str, seed: int) -> LiberoStart:
        """The start of an episode.

        Raises:
            ValueError: for a number that no state has.
        """
        if not 0 <= seed < STATES_PER_TASK:
            raise ValueError(
                f"an official initial state has a number in 0 ... {STATES_PER_TASK - 1}, got {seed}"
            )
        fixtures = self.first_seed + self.seed_step * seed
        return LiberoStart(fixtures, libero_states(self.suite, task)[seed])


def refuse_official_state(suite: str, task: str, positions: np.ndarray) -> None:
    """Refuse a simulator state that is one of the official evaluation's.

    It is one where no number differs by more than 1e-6, but for the robot's joints.

    Args:
        suite: the suite.
        task: the task's name.
        positions: MuJoCo's ``qpos`` before the scene settles, float [nq]: the states of
            :func:`libero_states` after their first number.

    Raises:
        ValueError: if it is.

    Example:
        >>> from rftf_torchrl import LiberoNotInstalledError, libero_states
        >>> task = "turn_on_the_stove"
        >>> try:
        ...     positions = libero_states("libero_goal", task)[7, 1:42]
        ...     refuse_official_state("libero_goal", task, positions)
        ... except LiberoNotInstalledError:
        ...     pass
        ... except ValueError as error:
        ...     assert str(error).startswith("official initial state 7 of 'turn_on_the_stove'")
    """
    official = libero_states(suite, task)[:, 1 : 1 + len(positions)]
    same = (np.abs(official - positions)[:, _ROBOT:] <= _SAME).all(1)
    if same.any():
        raise ValueError(
            f"official initial state {same.argmax()} of {task!r} in {suite}: it must not be "
            "trained on; draw new starts (starts=None)"
        )
