"""One finished cell of a study: a method on a task set with a seed, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import StrictBool, TypeAdapter, ValidationError

from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.settings import validation_problems

_FORMAT = "rftf_torchrl.cell.1"


class CellError(ValueError):
    """Cells that no report can be made of; the message lists every reason."""


@dataclass(frozen=True)
class CurvePoint:
    """Success on held-out states at one point of a run.

    Attributes:
        env_steps: simulator steps that the run has used, those beside fine-tuning included.
        success: rate of each task, in the order of the cell's tasks.
    """

    env_steps: int
    success: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """What one run of a study gave.

    Two cells are equal if their results are; how long they took and what started them is left out.

    Attributes:
        task_set: name of the task set.
        method: name of the method.
        seed: seed of the run.
        tasks: names of the tasks.
        digest: hash of every setting that decides the result.
        versions: version by package.
        curve: success over simulator steps, from the cloned policy on.
        outcomes: success of each final held-out episode by task; None where the simulator died.
        charged_steps: simulator steps beside fine-tuning, such as rollouts for the value model.
        states: how many initial states were trained on (``"training"``), were evaluated on
            (``"evaluation"``) and are in both (``"shared"``).
        seconds: wall time of the cell.
        cpu_seconds: processor time of the cell.
        start_seconds: wall time of what all methods of this task set and seed share.
        command: what was typed.
        commit: the code's commit, empty outside of a checkout.
    """

    task_set: str
    method: str
    seed: int
    tasks: tuple[str, ...]
    digest: str
    versions: dict[str, str]
    curve: tuple[CurvePoint, ...]
    outcomes: dict[str, tuple[StrictBool | None, ...]]
    charged_steps: int
    states: dict[str, int]
    seconds: float = field(default=0.0, compare=False)
    cpu_seconds: float = field(default=0.0, compare=False)
    start_seconds: float = field(default=0.0, compare=False)
    command: str = field(default="", compare=False)
    commit: str = field(default="", compare=False)

    @property
    def env_steps(self) -> int:
        """Simulator steps of the whole run."""
        return self.curve[-1].env_steps

    @property
    def final(self) -> tuple[float, ...]:
        """Final success rate of each task; crashed episodes are no trials."""
        rates = []
        for task in self.tasks:
            ended = [won for won in self.outcomes[task] if won is not None]
            rates.append(fmean(ended))
        return tuple(rates)


def cell_file(folder: str | Path, task_set: str, method: str, seed: int) -> Path:
    """Where the file of a cell lies below the folder of its study."""
    return Path(folder, "cells", task_set, method, f"seed{seed}.json")


def save_cell(folder: str | Path, cell: Cell) -> Path:
    """Write a finished cell, whole or not at all.

    Args:
        folder: the folder of the study.
        cell: the cell.

    Returns:
        The file.

    Raises:
        CellError: if the cell is not one that :func:`load_cell` would take.
    """
    data = {"format": _FORMAT, **asdict(cell)}
    path = cell_file(folder, cell.task_set, cell.method, cell.seed)
    _from_dict(json.loads(json.dumps(data)), path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, data)
    return path


def load_cell(path: str | Path) -> Cell:
    """Read a cell.

    Args:
        path: the file.

    Returns:
        The cell.

    Raises:
        CellError: if the file is missing, truncated, of another format, or holds no finished cell.
    """
    path = Path(path)
    try:
        return _from_dict(read_record(path, "remove it and run the study again"), path)
    except FileNotFoundError as error:
        raise CellError(f"{path} is missing: run the study again, it continues") from error
    except ValueError as error:  # a CellError is one
        raise CellError(str(error)) from error


def _from_dict(data: Any, path: Path) -> Cell:
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise CellError(f"{path} has the format {found!r}, expected {_FORMAT!r}")
    try:
        cell = TypeAdapter(Cell).validate_python(data)
    except ValidationError as error:
        problems = "; ".join(validation_problems(error, ""))
        raise CellError(f"{path} holds no finished cell: {problems}") from error
    problem = _problem(cell)
    if problem:
        raise CellError(f"{path} holds no finished cell: {problem}")
    return cell


def _problem(cell: Cell) -> str | None:
    """What is wrong with the numbers of a cell."""
    if not cell.tasks or cell.outcomes.keys() != set(cell.tasks):
        return f"its tasks are {list(cell.tasks)}, its outcomes those of {list(cell.outcomes)}"
    for task, outcomes in cell.outcomes.items():
        if all(won is None for won in outcomes):
            return f"no episode of {task!r} came to an end"
    steps = [point.env_steps for point in cell.curve]
    if not steps or steps != sorted(set(steps)):
        return f"the steps {steps} of its curve do not increase"
    for point in cell.curve:
        rates = point.success
        if len(rates) != len(cell.tasks) or not all(0.0 <= rate <= 1.0 for rate in rates):
            return f"its curve has {list(rates)} at step {point.env_steps}, no rate for each task"
    if cell.states.get("shared") != 0:
        return f"training and evaluation share initial states: {cell.states}"
    return None
