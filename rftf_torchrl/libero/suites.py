"""LIBERO's suites, their tasks and instructions, and the official initial states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rftf_torchrl.data.format import Task
from rftf_torchrl.libero.install import libero_module, require_libero
from rftf_torchrl.optional import quiet

TRAINED = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
HELD_OUT = tuple(
    f"libero_{suite}_{change}"
    for suite in ("spatial", "object", "goal", "10")
    for change in ("lan", "object", "swap", "task")
)
SUITES = TRAINED + HELD_OUT
STATES_PER_TASK = 50


def check_suite(suite: str) -> None:
    """Refuse an unknown suite."""
    if suite not in SUITES:
        raise ValueError(f"unknown LIBERO suite {suite!r}; choose from {', '.join(SUITES)}")


def trained_suite(suite: str) -> str:
    """The suite that a perturbed one perturbs; any other one is its own.

    Example:
        >>> trained_suite("libero_10_swap"), trained_suite("libero_90")
        ('libero_10', 'libero_90')
    """
    return suite if suite in TRAINED else suite.rpartition("_")[0]


@cache
def _suite(name: str) -> Any:
    check_suite(name)
    require_libero()
    with quiet():
        return libero_module("libero.libero.benchmark").get_benchmark_dict()[name]()


@cache
def libero_tasks(suite: str) -> Mapping[str, Task]:
    """The tasks of a suite by name, in LIBERO's order; a task's number is its place.

    The instructions are those of evaluations: from the file's name, or from the task's definition
    where LIBERO-PRO changes the instruction or the goal.

    Args:
        suite: one of ``SUITES``.

    Raises:
        ValueError: for an unknown suite.
        LiberoNotInstalledError: when LIBERO is missing.

    Example:
        >>> from rftf_torchrl import LiberoNotInstalledError, libero_tasks
        >>> try:
        ...     sentence = list(libero_tasks("libero_goal").values())[7].instruction
        ... except LiberoNotInstalledError:
        ...     sentence = "turn on the stove"
        >>> sentence
        'turn on the stove'
    """
    found = {}
    for number, task in enumerate(_suite(suite).tasks):
        sentence = task.language
        if suite.endswith(("_lan", "_task")):
            sentence = _own_sentence(task_file(suite, task.name))
        found[task.name] = Task(number, task.name, sentence)
    return found


def get_task(suite: str, name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: for an unknown suite or name.
    """
    tasks = libero_tasks(suite)
    if name not in tasks:
        raise ValueError(f"{suite} has no task {name!r}; choose from {', '.join(tasks)}")
    return tasks[name]


def task_file(suite: str, task: str) -> Path:
    """The definition of a task."""
    folder = Path(libero_module("libero.libero").get_libero_path("bddl_files"), suite)
    return folder / f"{task}.bddl"


def _own_sentence(file: Path) -> str:
    found = re.search(r"\(:language (.*?)\)", file.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise ValueError(f"{file} has no (:language ...)")
    return found[1].strip()


@cache
def libero_states(suite: str, task: str) -> np.ndarray:
    """The initial states of the official evaluation.

    Args:
        suite: one of ``SUITES``.
        task: the task's name.

    Returns:
        float64 [50, D]: time, positions and velocities of the simulator. Not to be written to.

    Raises:
        ValueError: for an unknown suite or task.
        LiberoNotInstalledError: when LIBERO is missing.
    """
    number = get_task(suite, task).id
    states = np.asarray(_suite(suite).get_task_init_states(number), dtype=np.float64)
    states.setflags(write=False)
    return states
