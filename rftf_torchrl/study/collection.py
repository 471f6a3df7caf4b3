"""All cells of a study, read and checked against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rftf_torchrl.study.cell import Cell, CellError, cell_file, load_cell

Key = tuple[str, str, int]


class Cells:
    """Cells by task set, method and seed: every combination is there.

    Args:
        cells: the cells.

    Attributes:
        task_sets: names of the task sets, in the order of the cells.
        methods: names of the methods, likewise.
        seeds: the seeds, likewise.

    Raises:
        CellError: listing the combinations that are missing, and whatever differs between cells
            that must be alike: versions, tasks.
    """

    def __init__(self, cells: list[Cell]) -> None:
        self._cells = {(cell.task_set, cell.method, cell.seed): cell for cell in cells}
        self.task_sets = list(dict.fromkeys(cell.task_set for cell in cells))
        self.methods = list(dict.fromkeys(cell.method for cell in cells))
        self.seeds = list(dict.fromkeys(cell.seed for cell in cells))
        problems = _differences(cells)
        problems += [
            f"there is no cell of method {method!r}, task set {name!r}, seed {seed}"
            for name in self.task_sets
            for method in self.methods
            for seed in self.seeds
            if (name, method, seed) not in self._cells
        ]
        if not cells:
            problems = ["there is no cell"]
        _raise(problems)

    def __getitem__(self, key: Key) -> Cell:
        return self._cells[key]

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells.values())

    def of(self, task_set: str, method: str) -> list[Cell]:
        """The cells of one method on one task set, in the order of the seeds."""
        if method not in self.methods or task_set not in self.task_sets:
            raise CellError(
                f"there is no method {method!r} on task set {task_set!r}: the methods are "
                f"{', '.join(self.methods)}, the task sets {', '.join(self.task_sets)}"
            )
        return [self._cells[task_set, method, seed] for seed in self.seeds]

    def scores(self, task_set: str, method: str) -> Tensor:
        """Final success of each run and task, float64 [seeds, tasks]."""
        return torch.tensor([cell.final for cell in self.of(task_set, method)]).double()


def load_cells(folder: str | Path, expected: Mapping[Key, str | None]) -> Cells:
    """Read the cells of a study.

    Args:
        folder: the folder of the study.
        expected: the digest of each (task set, method, seed); None takes whatever is there.

    Returns:
        The cells.

    Raises:
        CellError: listing every cell that is missing, truncated, made under other settings or by
            other versions. Nothing is filled in.
    """
    cells, problems = _read(folder, expected)
    _raise(problems)
    return Cells(cells)


def check_finished_cells(
    folder: str | Path, expected: Mapping[Key, str | None], versions: Mapping[str, str]
) -> None:
    """Refuse cells of which no report could be made with those that are still to be run.

    Args:
        folder: the folder of the study.
        expected: the digest of each (task set, method, seed), as of :func:`load_cells`.
        versions: of the packages that the others will be run with.

    Raises:
        CellError: listing every cell that is truncated, or was made under other settings or by
            other versions. Where all are there, nothing is left to be run by these versions, and
            they may differ.

    Example:
        >>> check_finished_cells("no-such-folder", {("easy", "sparse", 0): None}, {})
    """
    there = {key: digest for key, digest in expected.items() if cell_file(folder, *key).is_file()}
    cells, problems = _read(folder, there)
    for cell in cells if len(there) < len(expected) else []:
        path = cell_file(folder, cell.task_set, cell.method, cell.seed)
        problems += other_versions(path, cell.versions, versions)
    _raise(problems)


def other_versions(path: Path, made: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is wrong with a file of a study that goes on: other versions have made it."""
    changed = [
        f"{name} {made.get(name, 'none')}, now {version}"
        for name, version in now.items()
        if made.get(name) != version
    ]
    remedy = "install what it was made with, move it away, or choose another output"
    return [f"{path} was made with {'; '.join(changed)}: {remedy}"] if changed else []


def _read(folder: str | Path, expected: Mapping[Key, str | None]) -> tuple[list[Cell], list[str]]:
    """The cells that can be used, and what is wrong with the others."""
    cells, problems = [], []
    for key, digest in expected.items():
        path = cell_file(folder, *key)
        try:
            cell = load_cell(path)
        except CellError as error:
            problems.append(str(error))
            continue
        if (cell.task_set, cell.method, cell.seed) != key:
            problems.append(f"{path} is the cell of {cell.method!r}, seed {cell.seed}: moved here?")
        elif digest is not None and cell.digest != digest:
            problems.append(
                f"{path} was made under other settings: move it away, or choose another output"
            )
        else:
            cells.append(cell)
    return cells, problems


def _differences(cells: list[Cell]) -> list[str]:
    problems = []
    for package in sorted({name for cell in cells for name in cell.versions}):
        found = {cell.versions.get(package): cell for cell in reversed(cells)}
        if len(found) > 1:
            listed = ", ".join(
                f"{version or 'none'} (method {cell.method!r}, seed {cell.seed})"
                for version, cell in sorted(found.items(), key=str)
            )
            problems.append(f"the cells were made with different versions of {package}: {listed}")
    for name in dict.fromkeys(cell.task_set for cell in cells):
        if len({cell.tasks for cell in cells if cell.task_set == name}) > 1:
            problems.append(f"the cells of task set {name!r} have different tasks")
    return problems


def _raise(problems: list[str]) -> None:
    if problems:
        raise CellError("no report can be made:\n  - " + "\n  - ".join(problems))
