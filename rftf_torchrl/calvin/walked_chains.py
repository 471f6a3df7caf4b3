"""Where the tasks of a walked chain began, and the file to which each such chain is added."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rftf_torchrl.calvin.expert.record import RecordedChain, RecordedTask
from rftf_torchrl.calvin.scenes import benchmark_scene
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.state_bank import StateBank
from rftf_torchrl.calvin.tasks import get_task
from rftf_torchrl.evaluation.finished import FinishedFile


def usable(task: RecordedTask) -> bool:
    """Whether a recorded task does not begin in a scene of the benchmark."""
    return benchmark_scene(task.scene_obs[0]) is None


@dataclass(frozen=True)
class Start:
    """Where a task began: CALVIN's name, tasks before it, and the simulator's state."""

    task: str
    depth: int
    robot_obs: list[float]
    scene_obs: list[float]


@dataclass(frozen=True)
class WalkedChain:
    """The starts of a chain's tasks and its control steps; ``index`` is its place in the list."""

    index: int
    steps: int
    starts: tuple[Start, ...]

    @classmethod
    def of(cls, index: int, chain: RecordedChain) -> WalkedChain:
        """What is kept of a chain that the expert walked."""
        starts = tuple(
            Start(task.task, task.depth, task.robot_obs[0].tolist(), task.scene_obs[0].tolist())
            for task in chain.tasks
            if usable(task)
        )
        return cls(index, chain.steps, starts)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WalkedChain:
        """Reads what :func:`dataclasses.asdict` wrote."""
        starts = tuple(Start(**start) for start in data["starts"])
        return cls(int(data["index"]), int(data["steps"]), starts)


class WalkedChains(FinishedFile[WalkedChain]):
    """A file with one walked chain a line, to which a recording of starts that stopped returns."""

    what = "walked chain"
    read = staticmethod(WalkedChain.from_dict)

    def tasks(self) -> set[str]:
        """The tasks that have a start."""
        return {start.task for chain in self.results.values() for start in chain.starts}

    def bank(self, scene: Scene, wanted: Collection[str], made_by: Mapping[str, Any]) -> StateBank:
        """The starts of these tasks, in the order of the chains."""
        chains = [self.results[index] for index in sorted(self.results)]
        starts = [start for chain in chains for start in chain.starts if start.task in wanted]
        return StateBank(
            np.array([start.robot_obs for start in starts]),
            np.array([start.scene_obs for start in starts]),
            np.array([get_task(start.task).id for start in starts]),
            np.array([start.depth for start in starts]),
            scene,
            sum(chain.steps for chain in chains),
            made_by,
        )
