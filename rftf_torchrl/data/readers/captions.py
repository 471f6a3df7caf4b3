"""Instructions and outcomes of a folder of videos: a table, one for all, or a text beside each."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.data.readers.episode import BadEpisode
from rftf_torchrl.files import climbs_out

TABLES = ("captions.csv", "captions.jsonl")
_OUTCOMES = {
    **dict.fromkeys(("true", "1", "yes", "success"), True),
    **dict.fromkeys(("false", "0", "no", "failure"), False),
    **dict.fromkeys(("", "null", "none", "nan"), None),
}


def outcome(value: Any) -> bool | None:
    """Whether a word or a number stands for a success; None where it says nothing.

    Raises:
        ValueError: where it stands for no outcome.
    """
    text = value.item() if getattr(value, "size", 0) == 1 else value  # of NumPy
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    if isinstance(text, float) and text in (0.0, 1.0):
        text = int(text)
    word = "" if text is None else str(text).strip().lower()
    if word not in _OUTCOMES:
        raise ValueError(f"success is {text!r}, expected true, false or nothing")
    return _OUTCOMES[word]


@dataclass(frozen=True)
class Caption:
    """What is said of one video.

    Attributes:
        file: its path from the folder on, with ``/``.
        instruction: the task's text.
        success: whether it shows a success; None where that is not said.
        task: what it is grouped by in reports; None for the instruction.
        split: ``"train"``, ``"test"`` or None.
    """

    file: str
    instruction: str
    success: bool | None = None
    task: str | None = None
    split: str | None = None


COLUMNS = tuple(field.name for field in fields(Caption))


def read_captions(
    root: Path, videos: Collection[str], *, alone: bool = False
) -> dict[str, Caption | BadEpisode]:
    """Read the table of captions and hold it against the videos that are there.

    Args:
        root: the folder.
        videos: paths of the videos from the folder on, with ``/``.
        alone: whether the lines of others are passed over, as the folder may have more videos.

    Returns:
        By video, its caption or what is wrong; lines that belong to no video by their place.

    Raises:
        DemonstrationError: where the table as a whole cannot be read.
    """
    (table,) = (root / name for name in TABLES if (root / name).is_file())
    found: dict[str, list[tuple[str, Caption]]] = defaultdict(list)
    result: dict[str, Caption | BadEpisode] = {}
    for place, row in _rows(table):
        caption = _caption(row)
        if alone and (isinstance(caption, str) or caption.file not in videos):
            continue
        if isinstance(caption, str):
            result[place] = BadEpisode(place, caption)
        elif caption.file not in videos:
            problem = f"there is no video {caption.file!r} in {root}"
            if climbs_out(caption.file):
                problem = f"the file {caption.file!r} is outside of {root}"
            result[place] = BadEpisode(place, problem)
        else:
            found[caption.file].append((place, caption))
    for video in videos:
        captions = found[video]
        if len(captions) == 1:
            result[video] = captions[0][1]
        elif captions:
            places = ", ".join(place for place, _ in captions)
            result[video] = BadEpisode(video, f"it has {len(captions)} captions: {places}")
        else:
            problem = f"no line of {table.name} names it with an instruction"
            result[video] = BadEpisode(video, problem)
    return result


def _rows(table: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """The lines of a table by place, each a mapping or what is wrong with it."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DemonstrationError(str(table), [f"it is not UTF-8 text ({error})"]) from error
    if table.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):  # a sentence may have U+2028
            if not line.strip():
                continue
            place = f"{table.name} line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                yield place, f"unreadable JSON ({error})"
                continue
            yield place, row if isinstance(row, dict) else "expected an object in braces"
        return
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = reader.fieldnames or []
    if not {"file", "instruction"} <= set(names):
        raise DemonstrationError(
            str(table),
            [f"its first line names the columns {list(names)}, expected file and instruction"],
        )
    for row in reader:
        place = f"{table.name} line {reader.line_num}"
        if None in row:
            problem = "it has more values than columns: put an instruction with a comma in quotes"
            yield place, problem
        else:
            yield place, dict(row)


def _caption(row: dict[str, Any] | str) -> Caption | str:
    """The caption of a line, or what is wrong with it."""
    if isinstance(row, str):
        return row
    unknown = [name for name in row if name not in COLUMNS]
    if unknown:
        return f"unknown {', '.join(map(repr, unknown))}: it may have {', '.join(COLUMNS)}"
    values = {name: row.get(name) for name in COLUMNS}
    try:
        success = outcome(values.pop("success"))
    except ValueError as error:
        return str(error)
    texts = {name: str(value or "").strip() for name, value in values.items()}
    for name in ("file", "instruction"):
        if not texts[name]:
            return f"the {name} is empty"
    if texts["split"] not in ("", "train", "test"):
        return f"split is {texts['split']!r}, expected train, test or nothing"
    return Caption(
        texts["file"].replace("\\", "/").removeprefix("./"),
        texts["instruction"],
        success,
        texts["task"] or None,
        texts["split"] or None,
    )
