"""The on-disk format of demonstrations: file names, entries, and the two records of its index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError
from tensordict import NestedKey

from rftf_torchrl import keys
from rftf_torchrl.nets.sentences import normal_sentence
from rftf_torchrl.settings import validation_problems

FORMAT_VERSION = 1
INDEX_FILE = "demonstrations.json"
FRAMES_FOLDER = "frames"

EPISODE = "episode"
ACTION = "action"
ACTION_IS_PAD = "action_is_pad"

Entry = tuple[NestedKey, torch.dtype, tuple[int | str, ...]]

RECORDED_ENTRIES: tuple[Entry, ...] = (
    (keys.IMAGE, torch.uint8, (3, "h", "w")),
    (keys.WRIST_IMAGE, torch.uint8, (3, "wrist_h", "wrist_w")),
    (keys.STATE, torch.float32, ("S",)),
    (keys.TOKENS, torch.int64, ("L",)),
    (keys.TOKEN_MASK, torch.bool, ("L",)),
    (ACTION, torch.float32, ("A",)),
)
"""What a collector records per frame: key, dtype, and shape after the frame dimension.

The images are optional: a folder has each of them in every episode or in none.
"""

STORED_ENTRIES: tuple[Entry, ...] = (
    *RECORDED_ENTRIES,
    (keys.TASK_ID, torch.int64, (1,)),
    (EPISODE, torch.int64, (1,)),
    (ACTION_IS_PAD, torch.bool, (1,)),
)
"""What lies on disk per frame: :data:`RECORDED_ENTRIES` and what the writer adds."""


class DemonstrationError(ValueError):
    """Demonstrations that break the format, with every violation in ``problems``.

    Args:
        what: what was looked at, for the first line of the message.
        problems: one sentence per violation.

    Example:
        >>> raise DemonstrationError("Episode 3", ["key 'action': missing"])
        Traceback (most recent call last):
            ...
        rftf_torchrl.data.format.DemonstrationError: Episode 3: 1 problem found:
          - key 'action': missing
    """

    def __init__(self, what: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"{what}: {count} problem{'s' * (count != 1)} found:{lines}")


@dataclass(frozen=True)
class Task:
    """One task: its id in ``"task_id"``, its name, and the instruction in words.

    Args:
        id: the number written to ``"task_id"``.
        name: the task's short name, as the simulator spells it.
        instruction: the task's text that was tokenised.

    Example:
        >>> Task(id=0, name="reach-v3", instruction="reach the red dot").name
        'reach-v3'
    """

    id: StrictInt
    name: StrictStr
    instruction: StrictStr


@dataclass(frozen=True)
class Episode:
    """One episode: frames ``start`` to ``stop`` (exclusive) of the flat frames.

    Args:
        index: the number written to ``"episode"``.
        task_id: the episode's task.
        start: its first frame.
        stop: one past its last frame.
        success: whether the episode reached its goal; None where nobody has said so.
        goal_seed: the seed that the goal was drawn with, if known.
        split: the name of the part of the data it belongs to, such as ``"train"``.
        source: where it came from, of an episode that was imported.
        takeover: decisions that a policy took before the expert, whose frames these are, took over.

    Example:
        >>> len(Episode(index=0, task_id=0, start=10, stop=25, success=True))
        15
    """

    index: StrictInt
    task_id: StrictInt
    start: StrictInt
    stop: StrictInt
    success: StrictBool | None
    goal_seed: StrictInt | None = None
    split: StrictStr = "train"
    source: StrictStr | None = None
    takeover: StrictInt = 0

    def __len__(self) -> int:
        return self.stop - self.start


def as_tasks(tasks: Iterable[Task | Mapping[str, Any]]) -> tuple[Task, ...]:
    """Turn records of ``{id, name, instruction}`` into :class:`Task`.

    Args:
        tasks: tasks, or mappings with a task's fields.

    Returns:
        The tasks, in the order given.

    Raises:
        DemonstrationError: with every record that lacks a field or has one of another type; where
            there is none, with every one that has an empty instruction or repeats an id.

    Example:
        >>> as_tasks([{"id": 0, "name": "reach-v3", "instruction": "reach the red dot"}])
        (Task(id=0, name='reach-v3', instruction='reach the red dot'),)
    """
    records = [asdict(task) if isinstance(task, Task) else task for task in tasks]
    try:
        found = TypeAdapter(tuple[Task, ...]).validate_python(records)
    except ValidationError as error:
        raise DemonstrationError("Tasks", validation_problems(error, "tasks.")) from error
    problems = task_problems(found)
    if problems:
        raise DemonstrationError("Tasks", problems)
    return found


def task_problems(tasks: Sequence[Task]) -> list[str]:
    """List what is wrong with tasks whose fields have the right types."""
    if not tasks:
        return ["the list of tasks is empty"]
    problems: list[str] = []
    seen: set[int] = set()
    for task in tasks:
        where = f"task {task.id} ('{task.name}')"
        if not normal_sentence(task.instruction):
            problems.append(f"{where}: the instruction is empty")
        if task.id in seen:
            problems.append(f"{where}: the id is used twice")
        seen.add(task.id)
    return problems


def frames_folder(root: Path) -> Path:
    """The folder of the memory-mapped frames below ``root``."""
    return root / FRAMES_FOLDER


def index_file(root: Path) -> Path:
    """The index below ``root``."""
    return root / INDEX_FILE
