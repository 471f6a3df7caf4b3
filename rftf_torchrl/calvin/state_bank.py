"""A store of simulator states in which each task begins, middles of chains included."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from rftf_torchrl.calvin.scenes import benchmark_scene, refuse_test_state, training_scene
from rftf_torchrl.calvin.sequences import Chain
from rftf_torchrl.calvin.settings import Scene, check_scene
from rftf_torchrl.calvin.tasks import TASKS, get_task
from rftf_torchrl.files import whole_file

_WIDTHS = {"robot_obs": 15, "scene_obs": 24}
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, AttributeError)
_COLUMNS = (*_WIDTHS, "task", "depth")


class Simulator(Protocol):
    """What a chain is walked in: :class:`~rftf_torchrl.CalvinSimulator`."""

    scene: Scene
    robot_obs: np.ndarray
    scene_obs: np.ndarray
    info: dict[str, Any]

    def reset(self, robot_obs: np.ndarray, scene_obs: np.ndarray) -> None:
        """Puts robot and scene into a state."""
        ...

    def step(self, action: np.ndarray) -> None:
        """Carries out one action [7]."""
        ...

    def achieved(self, start_info: dict[str, Any], tasks: Sequence[str]) -> set[str]:
        """Which of the tasks are done between ``start_info`` and now."""
        ...


class Controller(Protocol):
    """What acts on a simulator: :class:`~rftf_torchrl.CalvinExpert`."""

    def start(self, task: str, simulator: Simulator) -> None:
        """Forgets what was before and prepares for a task."""
        ...

    def action(self, simulator: Simulator) -> np.ndarray:
        """The next action [7]."""
        ...


@dataclass(frozen=True)
class StateBank:
    """States in which a task begins, none of them an initial scene of the benchmark.

    Attributes:
        robot_obs: float64 [N, 15].
        scene_obs: float64 [N, 24], blocks in the scene's own order.
        task: int64 [N], the task that begins there, see :data:`~rftf_torchrl.calvin.tasks.TASKS`.
        depth: int64 [N], how many tasks of the chain came before.
        scene: the scene's letter.

    Raises:
        ValueError: for a wrong shape or scene, no state, a value that is not finite, an unknown
            task, or a scene of the benchmark.

    Example:
        >>> from rftf_torchrl import initial_states
        >>> robot_obs, scene_obs = training_scene(initial_states()[0], seed=0)
        >>> bank = StateBank(robot_obs[None], scene_obs[None], np.array([2]), np.array([0]), "D")
        >>> bank.count("rotate_blue_block_right"), bank.draw("rotate_blue_block_right", 0)[1].shape
        (1, (24,))
    """

    robot_obs: np.ndarray
    scene_obs: np.ndarray
    task: np.ndarray
    depth: np.ndarray
    scene: Scene

    def __post_init__(self) -> None:
        check_scene(self.scene)
        length = len(self.task)
        if not length:
            raise ValueError("the bank has no state; expected at least one")
        for name in _COLUMNS:
            array = getattr(self, name)
            shape = (length, _WIDTHS[name]) if name in _WIDTHS else (length,)
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise ValueError(f"{name}[{row}] is not finite")
        wrong = np.flatnonzero((self.task < 0) | (self.task >= len(TASKS)))
        if wrong.size:
            raise ValueError(
                f"task[{wrong[0]}] must be in [0, {len(TASKS)}), got {self.task[wrong[0]]}"
            )
        refuse_test_state(self.scene_obs)

    def __len__(self) -> int:
        return len(self.task)

    def count(self, task: str) -> int:
        """How many states of a task there are.

        Raises:
            ValueError: for an unknown task.
        """
        return int((self.task == get_task(task).id).sum())

    def draw(self, task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """One of a task's states, uniformly.

        Args:
            task: CALVIN's name.
            seed: 0 or more; the same seed draws the same state.

        Returns:
            ``robot_obs`` float64 [15] and ``scene_obs`` float64 [24].

        Raises:
            ValueError: for an unknown task, or one that has no state here.
        """
        rows = np.flatnonzero(self.task == get_task(task).id)
        if not rows.size:
            present = sorted({list(TASKS)[k] for k in self.task})
            raise ValueError(
                f"the bank has no state of task {task!r}; it has some of {', '.join(present)}"
            )
        row = rows[np.random.default_rng([seed, get_task(task).id]).integers(rows.size)]
        return self.robot_obs[row].copy(), self.scene_obs[row].copy()

    def save(self, path: str | Path) -> None:
        """Write the bank as an ``.npz`` file, without pickles; an interruption leaves none."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        with whole_file(path) as hidden, hidden.open("wb") as file:
            np.savez_compressed(file, scene=np.array(self.scene), **columns)

    @classmethod
    def load(cls, path: str | Path) -> StateBank:
        """Read what :meth:`save` wrote, and check it.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged or is no such bank; the message names it.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = {name: file[name] for name in _COLUMNS}
                return cls(**columns, scene=cast(Scene, str(file["scene"])))
        except _DAMAGED as error:
            raise ValueError(f"{path} is not a usable bank of states: {error}") from error


def collect_states(
    simulator: Simulator,
    controller: Controller,
    chains: Sequence[Chain],
    *,
    seed: int = 0,
    max_steps: int = 360,
    on_chain: Callable[[int], None] | None = None,
) -> StateBank:
    """Walk chains from fresh training scenes and keep each state from which a task was done.

    A state that has become one of the benchmark's initial scenes is left out.

    Args:
        simulator: of any scene.
        controller: does the tasks; a chain ends at its first failure.
        chains: e.g. of :func:`training_sequences`.
        seed: of the first chain's scene; the others' follow.
        max_steps: control steps for each task.
        on_chain: called with the number of tasks done of each chain, e.g. for a progress bar.

    Returns:
        The bank.

    Raises:
        ValueError: if no task was done at all.
    """
    rows: list[tuple[np.ndarray, np.ndarray, int, int]] = []
    for index, chain in enumerate(chains):
        simulator.reset(*training_scene(chain.initial_state, seed + index, simulator.scene))
        depth = 0
        for task in chain.tasks:
            start = simulator.robot_obs.copy(), simulator.scene_obs.copy()
            if not _does(simulator, controller, task, max_steps):
                break
            if benchmark_scene(start[1]) is None:
                rows.append((*start, get_task(task).id, depth))
            depth += 1
        if on_chain is not None:
            on_chain(depth)
    if not rows:
        raise ValueError(f"the controller did no task of {len(chains)} chains: no state to keep")
    robot_obs, scene_obs, tasks, depths = (np.stack(column) for column in zip(*rows, strict=True))
    return StateBank(robot_obs, scene_obs, tasks, depths, simulator.scene)


def _does(simulator: Simulator, controller: Controller, task: str, max_steps: int) -> bool:
    start_info = simulator.info
    controller.start(task, simulator)
    for _ in range(max_steps):
        simulator.step(controller.action(simulator))
        if simulator.achieved(start_info, [task]):
            return True
    return False
