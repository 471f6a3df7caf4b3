"""A store of simulator states in which each task begins, middles of chains included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from rftf_torchrl.calvin.data.frames import UNREADABLE
from rftf_torchrl.calvin.scenes import refuse_test_state
from rftf_torchrl.calvin.settings import Scene, check_scene
from rftf_torchrl.calvin.tasks import TASKS, get_task
from rftf_torchrl.files import whole_file

_WIDTHS = {"robot_obs": 15, "scene_obs": 24}
_COLUMNS = (*_WIDTHS, "task", "depth")


@dataclass(frozen=True)
class StateBank:
    """States in which a task begins, none of them an initial scene of the benchmark.

    Attributes:
        robot_obs: float64 [N, 15].
        scene_obs: float64 [N, 24], blocks in the scene's own order.
        task: int64 [N], the task that begins there, see :data:`~rftf_torchrl.calvin.tasks.TASKS`.
        depth: int64 [N], how many tasks of the chain came before.
        scene: the scene's letter.
        simulator_steps: control steps that were played for the states; 0 where that is not known.
        made_by: settings that decide the states, plain values; empty where they are not known.

    Raises:
        ValueError: for a wrong shape or scene, no state, a value that is not finite, an unknown
            task, or a scene of the benchmark.

    Example:
        >>> from rftf_torchrl import initial_states, training_scene
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
    simulator_steps: int = 0
    made_by: Mapping[str, Any] = field(default_factory=dict)

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
            steps = np.array(self.simulator_steps)
            scene, made_by = np.array(self.scene), np.array(json.dumps(dict(self.made_by)))
            np.savez_compressed(
                file, scene=scene, simulator_steps=steps, made_by=made_by, **columns
            )

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
                steps = int(file["simulator_steps"]) if "simulator_steps" in file else 0
                made_by = json.loads(str(file["made_by"])) if "made_by" in file else {}
                return cls(
                    **columns,
                    scene=cast(Scene, str(file["scene"])),
                    simulator_steps=steps,
                    made_by=made_by,
                )
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            raise ValueError(f"{path} is not a usable bank of states: {error}") from error
