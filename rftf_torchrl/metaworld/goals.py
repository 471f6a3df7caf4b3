"""Initial states for training and for testing that can never be the same."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.envs.episodes import Split, check_split

CELLS = 2**20
"""Cells per varying dimension of a task's reset space."""


class GoalSampler:
    """Draw a task's random vector (object and goal position) from one half of a fine grid.

    Every varying dimension of the reset space is cut into ``CELLS`` cells. Training draws the even
    cells, testing the odd ones. So no training state can be a test state, with any seed, and both
    halves cover the whole space (neighbouring cells are about 1e-7 m apart). The split
    is part of the seed too: the same seed in the other half is an unrelated state, not a neighbour.

    Args:
        low: lower corner of the reset space, in metres.
        high: upper corner.
        split: ``"train"`` or ``"test"``.

    Raises:
        ValueError: for another split, or when no dimension varies.

    Example:
        >>> import numpy as np
        >>> sampler = GoalSampler(np.zeros(2), np.ones(2), "train")
        >>> sampler.reseed(3)
        >>> first = sampler.draw()
        >>> sampler.reseed(3)
        >>> bool((sampler.draw() == first).all())
        True
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, split: Split) -> None:
        check_split(split)
        if not np.any(high > low):
            raise ValueError(
                f"the reset space has one point, {low.tolist()}: training and test states would be "
                "the same; choose another task"
            )
        self.low = np.asarray(low, dtype=np.float64)
        self.high = np.asarray(high, dtype=np.float64)
        self.split = split
        self._rng = np.random.default_rng(0)

    def reseed(self, *seeds: int) -> None:
        """Start the sequence of draws that belongs to these seeds."""
        self._rng = np.random.default_rng([*seeds, self.split == "test"])

    def draw(self) -> np.ndarray:
        """The next vector, float64, of the reset space's shape."""
        half = self._rng.integers(0, CELLS // 2, size=self.low.shape)
        cell = 2 * half + (self.split == "test")
        vector = self.low + (cell + 0.5) / CELLS * (self.high - self.low)
        return np.where(self.high > self.low, vector, self.low)
