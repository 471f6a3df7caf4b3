"""CALVIN's thirty-four tasks, our instructions for them, and those of CALVIN's checkout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from rftf_torchrl.data.format import Task
from rftf_torchrl.nets.sentences import normal_sentence

BLOCKS = ("red", "blue", "pink")
"""The blocks, in the order of the benchmark's scene vectors."""

_FILES = {
    "training": "new_playtable.yaml",
    "validation": "new_playtable_validation.yaml",
}


@dataclass(frozen=True)
class CalvinTask(Task):
    """One task, its number the position in the order from which the benchmark draws its chains.

    Attributes:
        category: kind of the task; a chain never has two tasks of one kind.
    """

    category: str = ""


def _tasks() -> Iterator[tuple[str, str, str]]:
    for block in BLOCKS:
        for side, sense in (("right", "clockwise"), ("left", "counterclockwise")):
            name = f"rotate_{block}_block_{side}"
            yield name, "move block", f"turn the {block} block {sense}, to the {side}"
    for block in BLOCKS:
        for side in ("right", "left"):
            yield f"push_{block}_block_{side}", "move block", f"shove the {block} block {side}wards"
    for side in ("left", "right"):
        yield f"move_slider_{side}", "slider", f"slide the door over to the {side}"
    yield "open_drawer", "drawer", "open the drawer"
    yield "close_drawer", "drawer", "close the drawer"
    for block in BLOCKS:
        for place, where in (
            ("table", "from the table"),
            ("slider", "out of the sliding cabinet"),
            ("drawer", "out of the drawer"),
        ):
            name = f"lift_{block}_block_{place}"
            yield name, f"lift from {place}", f"pick up the {block} block {where}"
    yield "place_in_slider", "place", "put the block that you hold into the sliding cabinet"
    yield "place_in_drawer", "place", "put the block that you hold into the drawer"
    yield "stack_block", "stack", "put the block that you hold on top of another block"
    yield "unstack_block", "unstack", "take the upper block off the stack"
    for lamp, words in (("lightbulb", "yellow lamp"), ("led", "green lamp")):
        for state in ("on", "off"):
            yield f"turn_{state}_{lamp}", "lamp", f"switch the {words} {state}"
    yield "push_into_drawer", "push into drawer", "sweep the block into the open drawer"


TASKS: dict[str, CalvinTask] = {
    name: CalvinTask(index, name, instruction, category)
    for index, (name, category, instruction) in enumerate(_tasks())
}


def get_task(name: str) -> CalvinTask:
    """The task of this name.

    Raises:
        ValueError: for an unknown name; the message lists all thirty-four.

    Example:
        >>> get_task("open_drawer").id
        14
    """
    if name not in TASKS:
        raise ValueError(f"unknown CALVIN task {name!r}; choose from {', '.join(TASKS)}")
    return TASKS[name]


def load_sentences(
    calvin_root: str | Path, split: Literal["training", "validation"]
) -> dict[str, tuple[str, ...]]:
    """The instructions of a checkout of CALVIN; the benchmark uses those of ``"validation"``.

    Source: https://github.com/mees/calvin, ``calvin_models/conf/annotations``.

    Args:
        calvin_root: the folder into which CALVIN was cloned.
        split: ``"training"`` (389 instructions) or ``"validation"`` (one for each task).

    Returns:
        Instructions by task name, in the order of :data:`~rftf_torchrl.calvin.tasks.TASKS`.

    Raises:
        ValueError: for another split, or a file that does not hold instructions for every task.
        FileNotFoundError: if the checkout lacks the file.
    """
    if split not in _FILES:
        raise ValueError(f"split must be 'training' or 'validation', got {split!r}")
    path = Path(calvin_root) / "calvin_models" / "conf" / "annotations" / _FILES[split]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: expected a checkout of https://github.com/mees/calvin at "
            f"{calvin_root}"
        )
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"{path} holds no mapping from tasks to instructions")
    missing = [name for name in TASKS if not _are_sentences(read.get(name))]
    if missing:
        raise ValueError(f"{path} has no list of instructions for {', '.join(missing)}")
    return {name: tuple(map(normal_sentence, read[name])) for name in TASKS}


def _are_sentences(read: object) -> bool:
    return isinstance(read, list) and bool(read) and all(isinstance(s, str) and s for s in read)
