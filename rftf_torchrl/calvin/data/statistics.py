"""``statistics.yaml``: what CALVIN's loader normalises states with, and the range of actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import yaml

from rftf_torchrl.calvin.data.format import ABSOLUTE, ROBOT, SCENE, VECTORS

NORMALIZE = "calvin_agent.utils.transforms.NormalizeVector"


class RunningStatistics:
    """Mean and deviation of the states, least and greatest action, frame by frame.

    Means and sums of squares are updated by Welford's recurrence, so that nothing is kept.

    Example:
        >>> statistics = RunningStatistics()
        >>> for value in (1.0, 3.0):
        ...     statistics.add({key: np.full(size, value) for key, size in VECTORS.items()})
        >>> content = yaml.safe_load(statistics.to_yaml())
        >>> content["robot_obs"][0]["mean"][0], content["robot_obs"][0]["std"][0]
        (2.0, 1.0)
        >>> content["act_min_bound"][0], content["act_max_bound"][0]
        (1.0, 3.0)
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = {key: np.zeros(VECTORS[key]) for key in (ROBOT, SCENE)}
        self._squares = {key: np.zeros(VECTORS[key]) for key in (ROBOT, SCENE)}
        self._least = np.full(VECTORS[ABSOLUTE], np.inf)
        self._greatest = np.full(VECTORS[ABSOLUTE], -np.inf)

    def add(self, frame: Mapping[str, np.ndarray]) -> None:
        """Count one frame.

        Args:
            frame: the entries ``actions``, ``robot_obs`` and ``scene_obs``.
        """
        self._count += 1
        for key, mean in self._mean.items():
            difference = frame[key] - mean
            mean += difference / self._count
            self._squares[key] += difference * (frame[key] - mean)
        self._least = np.minimum(self._least, frame[ABSOLUTE])
        self._greatest = np.maximum(self._greatest, frame[ABSOLUTE])

    def to_yaml(self) -> str:
        """The file's contents, after one frame or more."""
        content: dict[str, Any] = {
            key: [
                {
                    "_target_": NORMALIZE,
                    "mean": mean.tolist(),
                    "std": np.sqrt(self._squares[key] / self._count).tolist(),
                }
            ]
            for key, mean in self._mean.items()
        }
        content["act_min_bound"] = self._least.tolist()
        content["act_max_bound"] = self._greatest.tolist()
        return cast(str, yaml.safe_dump(content, sort_keys=False))
