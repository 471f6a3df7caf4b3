"""The annotated spans of a split: which frames show which task, and in what words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rftf_torchrl.calvin.data.format import ANNOTATIONS_FILE
from rftf_torchrl.calvin.data.layout import is_pair, read_object
from rftf_torchrl.calvin.tasks import TASKS
from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.nets.sentences import normal_sentence

MAX_LISTED = 20


@dataclass(frozen=True)
class CalvinSpan:
    """Frames of one episode in which one task is done.

    Args:
        index: the span's position in the annotations.
        start: the number of its first frame.
        stop: one past the number of its last frame.
        task: CALVIN's name of the task.
        sentence: the instruction.
        takeover: decisions that a policy took before the expert, whose frames these are.

    Example:
        >>> span = CalvinSpan(0, 64, 128, "open_drawer", "pull the drawer open")
        >>> len(span), span.task_id
        (64, 14)
    """

    index: int
    start: int
    stop: int
    task: str
    sentence: str
    takeover: int = 0

    @property
    def task_id(self) -> int:
        """The task's number in CALVIN's order."""
        return TASKS[self.task].id

    def __len__(self) -> int:
        return self.stop - self.start


def span_problems(span: CalvinSpan, episodes: np.ndarray) -> list[str]:
    """List what is wrong with a span.

    Args:
        span: the span.
        episodes: int64 [E, 2], first and last frame of each episode.

    Returns:
        One sentence per violation, none if the span is sound.

    Example:
        >>> span_problems(CalvinSpan(3, 64, 80, "open_door", " "), np.array([[64, 90]]))
        ["annotation 3: unknown task 'open_door'", 'annotation 3: the instruction is empty']
    """
    where = f"annotation {span.index}"
    problems = []
    if span.stop - span.start < 2:
        problems.append(
            f"{where}: start {span.start}, end {span.stop} (exclusive): expected 2 frames or more"
        )
    elif not ((episodes[:, 0] <= span.start) & (span.stop - 1 <= episodes[:, 1])).any():
        problems.append(
            f"{where}: start {span.start}, end {span.stop} (exclusive) are out of range: no "
            f"episode has these frames{_nearest(span, episodes)}"
        )
    if span.task not in TASKS:
        problems.append(f"{where}: unknown task {span.task!r}")
    if not normal_sentence(span.sentence):
        problems.append(f"{where}: the instruction is empty")
    return problems


def read_spans(folder: Path, episodes: np.ndarray) -> tuple[CalvinSpan, ...]:
    """Read a split's annotations.

    Args:
        folder: the folder of the split.
        episodes: int64 [E, 2], first and last frame of each episode.

    Returns:
        The spans, in the order of the file.

    Raises:
        DemonstrationError: with every violation: a missing, corrupt or unsafe file, missing
            entries, entries of different lengths, and spans that :func:`span_problems` finds fault
            with.

    Example:
        >>> read_spans(Path("no-such-folder"), np.zeros((0, 2)))
        Traceback (most recent call last):
            ...
        rftf_torchrl.data.format.DemonstrationError: CALVIN data in no-such-folder: 1 problem found:
          - lang_annotations/auto_lang_ann.npy: missing; without annotations there are frames only
    """
    advice = "; without annotations there are frames only"
    spans, problems = _parse(read_object(folder, ANNOTATIONS_FILE, advice))
    problems += [line for span in spans for line in span_problems(span, episodes)]
    if problems:
        if len(problems) > MAX_LISTED:
            more = f"and {len(problems) - MAX_LISTED} more problems like these"
            problems = [*problems[:MAX_LISTED], more]
        raise DemonstrationError(
            f"CALVIN data in {folder}", [f"{ANNOTATIONS_FILE}: {line}" for line in problems]
        )
    return tuple(spans)


def _parse(content: Any) -> tuple[list[CalvinSpan], list[str]]:
    """The spans that a file's contents name, and what they lack."""
    found: dict[str, list[Any]] = {}
    problems = []
    names = [("info", "indx"), ("language", "task"), ("language", "ann"), ("language", "takeover")]
    for group, name in names:
        part = content.get(group) if isinstance(content, Mapping) else None
        entry = part.get(name) if isinstance(part, Mapping) else None
        if entry is None and name == "takeover":
            continue
        if isinstance(entry, (list, tuple, np.ndarray)):
            found[name] = list(entry)
        else:
            problems.append(f"key {group!r}, {name!r}: missing, or not a list")
    if not problems and len({len(entry) for entry in found.values()}) > 1:
        lengths = ", ".join(f"{len(entry)} in {name!r}" for name, entry in found.items())
        problems.append(f"entries of different lengths: {lengths}")
    if problems:
        return [], problems
    found.setdefault("takeover", [0] * len(found["indx"]))
    spans = []
    for index, (bounds, task, sentence, takeover) in enumerate(zip(*found.values(), strict=True)):
        if not is_pair(bounds):
            problems.append(f"annotation {index}: 'indx' is {bounds}, expected two frame numbers")
        elif not isinstance(task, str) or not isinstance(sentence, str):
            problems.append(f"annotation {index}: 'task' and 'ann' must be text")
        elif not isinstance(takeover, int) or takeover < 0:
            problems.append(f"annotation {index}: 'takeover' is {takeover!r}, expected 0 or more")
        else:
            start, stop = map(int, bounds)
            spans.append(CalvinSpan(index, start, stop, str(task), str(sentence), takeover))
    return spans, problems


def _nearest(span: CalvinSpan, episodes: np.ndarray) -> str:
    """The episode that starts last before the span, to say where the mistake may be."""
    before = np.flatnonzero(episodes[:, 0] <= span.start)
    if not len(before):
        return ""
    episode = before[np.argmax(episodes[before, 0])]
    first, last = episodes[episode]
    return f"; episode {episode} has {first} to {last}"
