"""The reader of LeRobot's data sets, without LeRobot: pyarrow for the tables, av for the frames."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rftf_torchrl.data.readers.captions import outcome
from rftf_torchrl.data.readers.decode import read_video
from rftf_torchrl.data.readers.episode import BadEpisode, BadEpisodeError, VideoEpisode
from rftf_torchrl.data.readers.lerobot_layout import Layout, dataset_folder, read_layout
from rftf_torchrl.data.readers.pictures import at_rate, file_version, picture
from rftf_torchrl.optional import optional_module
from rftf_torchrl.settings import Text

Row = dict[str, Any]


def read_lerobot(
    path: str,
    *,
    size: int | None,
    fps: float | None,
    camera: Text | None = None,
    success: Text | None = None,
) -> Iterator[VideoEpisode | BadEpisode]:
    """Read a LeRobot data set of the format v3.0, v2.1 or v2.0.

    Source: https://github.com/huggingface/lerobot, ``CODEBASE_VERSION``.

    Args:
        path: a local folder, or an id of the hub such as ``lerobot/pusht``, of which the tables
            and one camera's videos are downloaded.
        size: edge of the square images in pixels; None for the videos' sizes.
        fps: frames per second to keep; None for all.
        camera: the key of the images, as ``observation.images.top``, or its last part; needed
            where there are several.
        success: the column that says whether an episode succeeded: of the frames, where one True
            is enough, or of the episodes; None for ``next.success`` where there is one.

    Yields:
        The episodes.

    Raises:
        DemonstrationError: where the data set as a whole cannot be read.
        FileNotFoundError: where there is none.
    """
    root = dataset_folder(path)
    layout = read_layout(root, camera, success)
    if root != Path(path):
        dataset_folder(path, layout.camera)
    tables, begin = _Tables(layout), 0
    for row in layout.episodes:
        number = row["episode_index"]
        first = row.get("dataset_from_index", begin)
        begin = first + row["length"]
        name = f"episode {number}"
        try:
            sentence, won, files = tables.of_episode(row)
            read = partial(_frames, layout, row, size, fps)
            yield VideoEpisode(
                name,
                sentence,
                read,
                success=won,
                index=number,
                fps=layout.fps,
                version=file_version(*files),
                row=first,
            )
        except (BadEpisodeError, ValueError, OSError) as error:
            yield BadEpisode(name, str(error), number)


class _Tables:
    """The small columns of the frames; those of the file that was read last are kept."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.file: Path | None = None
        self.rows: dict[int, list[Row]] = {}

    def of_episode(self, row: Row) -> tuple[str, bool | None, list[Path]]:
        """Instruction, outcome and files of an episode."""
        layout, number = self.layout, row["episode_index"]
        data = layout.file("data", row)
        files = [data, layout.file("video", row)] if layout.film else [data]
        for file in files:
            if not file.is_file():
                raise BadEpisodeError(f"{file.relative_to(layout.root)} is missing")
        if data != self.file:
            self.rows, self.file = _small_columns(layout, data), data
        frames = self.rows.get(number, [])
        where = data.relative_to(layout.root)
        if len(frames) != row["length"]:
            raise BadEpisodeError(
                f"{where} has {len(frames)} frames of it, but meta/episodes says {row['length']}"
            )
        found = dict.fromkeys(frame["task_index"] for frame in frames)
        for index in found:
            if index not in layout.tasks:
                raise BadEpisodeError(
                    f"{where} names task {index}, but meta/tasks has {len(layout.tasks)} tasks, "
                    f"{_few(layout.tasks)}"
                )
        if len(found) != 1:
            raise BadEpisodeError(
                f"it has {len(found)} instructions, expected 1: tasks {list(found)}"
            )
        name = layout.success or ""
        told = [frame[name] for frame in frames] if name in layout.features else [row.get(name)]
        try:
            told = [(each or [None])[0] if isinstance(each, list) else each for each in told]
            outcomes = {outcome(each) for each in told}
        except ValueError as error:
            raise BadEpisodeError(f"{name}: {error}") from error
        success = None if outcomes <= {None} else True in outcomes
        return layout.tasks[next(iter(found))], success, files


def _small_columns(layout: Layout, file: Path) -> dict[int, list[Row]]:
    """By episode, the rows of its frames: the task, and the outcome where there is one."""
    parquet = optional_module("pyarrow.parquet", "video", "reading LeRobot data sets")
    columns = ["episode_index", "task_index"]
    if layout.success in layout.features:
        columns.append(layout.success)
    where = file.relative_to(layout.root)
    try:
        schema = parquet.read_schema(file)
        if missing := [name for name in columns if name not in schema.names]:
            raise BadEpisodeError(f"{where} has no column {', '.join(missing)}")
        rows = parquet.read_table(file, columns=columns).to_pylist()
    except (ValueError, OSError) as error:
        if isinstance(error, BadEpisodeError):
            raise
        raise BadEpisodeError(f"{where} cannot be read ({error})") from error
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["episode_index"], []).append(row)
    return found


def _frames(layout: Layout, row: Row, size: int | None, fps: float | None) -> Tensor:
    if layout.film:
        return read_video(
            layout.file("video", row),
            size=size,
            fps=fps,
            start=float(row.get(f"videos/{layout.camera}/from_timestamp", 0.0)),
            count=row["length"],
        )
    return _stored_pictures(layout, row, size, fps)


def _stored_pictures(layout: Layout, row: Row, size: int | None, fps: float | None) -> Tensor:
    """Images that lie in the table itself."""
    parquet = optional_module("pyarrow.parquet", "video", "reading LeRobot data sets")
    data = layout.file("data", row)
    chosen = [("episode_index", "==", row["episode_index"])]
    column = parquet.read_table(data, columns=[layout.camera], filters=chosen).column(0)
    times = ((i / layout.fps, i) for i in range(len(column)))
    return torch.stack(
        [picture(BytesIO(_bytes(column[i].as_py(), i)), size) for i in at_rate(times, fps)]
    )


def _bytes(cell: Any, frame: int) -> bytes:
    content = cell.get("bytes") if isinstance(cell, dict) else None
    if not content:
        raise BadEpisodeError(f"the image of frame {frame} is not in the table")
    return bytes(content)


def _few(tasks: dict[int, str]) -> str:
    listed = ", ".join(map(str, sorted(tasks)[:5]))
    return f"{listed}, ..." if len(tasks) > 5 else listed
