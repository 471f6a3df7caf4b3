"""The reader of a folder of videos, or of folders of images, with an instruction each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.data.readers.captions import TABLES, Caption, read_captions
from rftf_torchrl.data.readers.decode import CONTAINERS, read_video
from rftf_torchrl.data.readers.episode import BadEpisode, BadEpisodeError, VideoEpisode
from rftf_torchrl.data.readers.pictures import at_rate, file_version, picture
from rftf_torchrl.settings import Positive, Text

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OUTCOMES = {"success": True, "successes": True, "failure": False, "failures": False}


def read_videos(
    path: str,
    *,
    size: int | None,
    fps: float | None,
    instruction: Text | None = None,
    picture_fps: Positive | None = None,
) -> Iterator[VideoEpisode | BadEpisode]:
    """Read a folder of videos (mp4, m4v, mov, mkv, webm, avi, gif) or of folders of images.

    Each video needs an instruction. It comes from ``captions.csv`` or ``captions.jsonl`` in the
    folder, with ``file`` and ``instruction`` and optionally ``success``, ``task`` and ``split``. Or
    it is the same for all, or is in a text file of the same name beside each video. A video below a
    folder named ``success`` or ``failure`` has that outcome, unless its caption gives one.

    Args:
        path: the folder, which is searched with all folders below it, or one video.
        size: edge of the square images in pixels; None for the videos' sizes.
        fps: frames per second to keep; None for all.
        instruction: one instruction for all videos.
        picture_fps: images per second in a folder of images, whose names sort in time order;
            None keeps all of them, with any ``fps``.

    Yields:
        The episodes by name, after what belongs to none.

    Raises:
        DemonstrationError: where there is no video, or the captions as a whole cannot be read.
    """
    root = Path(path)
    alone = root.is_file()
    if alone:
        found, root = [root], root.parent
    else:
        found = _videos(root)
    videos = {video.relative_to(root).as_posix(): video for video in found}
    if (
        not all(video.is_dir() or video.suffix.lower() in CONTAINERS for video in found)
        or not found
    ):
        raise DemonstrationError(
            f"Videos in {root}",
            [f"there is none: expected {', '.join(CONTAINERS)} or folders of images"],
        )
    captions = _captions(root, videos, instruction, alone)
    yield from (bad for place, bad in captions.items() if place not in videos)  # type: ignore[misc]
    for index, (name, video) in enumerate(videos.items()):
        caption = captions[name]
        if isinstance(caption, BadEpisode):
            yield BadEpisode(name, caption.problem, index)
            continue
        if video.is_dir():
            pictures = _pictures(video)
            read = partial(_read_pictures, pictures, size, fps, picture_fps)
        else:
            pictures, read = [video], partial(read_video, video, size=size, fps=fps)
        try:
            version = file_version(*pictures)
        except OSError as error:
            yield BadEpisode(name, f"it cannot be read ({error})", index)
            continue
        yield VideoEpisode(
            name,
            caption.instruction,
            read,
            success=_outcome(name) if caption.success is None else caption.success,
            task=caption.task,
            split=caption.split,
            index=index,
            fps=picture_fps if video.is_dir() else None,
            version=version,
        )


def _captions(
    root: Path, videos: dict[str, Path], instruction: str | None, alone: bool
) -> dict[str, Caption | BadEpisode]:
    tables = [name for name in TABLES if (root / name).is_file()]
    if len(tables) > 1 or (tables and instruction is not None):
        given = [*tables, *(["instruction"] if instruction is not None else [])]
        raise DemonstrationError(
            f"Videos in {root}",
            [f"instructions come from {' and '.join(given)}: keep one of them"],
        )
    if tables:
        return read_captions(root, videos, alone=alone)
    if instruction is not None:
        return {name: Caption(name, instruction) for name in videos}
    return {name: _text_beside(name, video) for name, video in videos.items()}


def _text_beside(name: str, video: Path) -> Caption | BadEpisode:
    file = video.with_name(f"{video.name if video.is_dir() else video.stem}.txt")
    if not file.is_file():
        return BadEpisode(
            name,
            f"it has no instruction: write {file.name} beside it, a captions.csv with file and "
            "instruction in the folder, or give one for all (data.options.instruction)",
        )
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        return BadEpisode(name, f"{file.name} is not UTF-8 text ({error})")
    return Caption(name, text) if text else BadEpisode(name, f"{file.name} is empty")


def _videos(root: Path) -> list[Path]:
    """The videos below a folder and the folders of images alone, sorted; nothing hidden."""
    files = [
        file
        for file in root.rglob("*")
        if file.is_file() and not any(part[0] == "." for part in file.relative_to(root).parts)
    ]
    videos = {file for file in files if file.suffix.lower() in CONTAINERS}
    beside = {file.parent for file in videos} | {root}
    pictures = {file.parent for file in files if file.suffix.lower() in PICTURES}
    return sorted(videos | (pictures - beside))


def _pictures(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names, 10 after 9."""
    found = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in PICTURES and not file.name.startswith(".")
    ]
    return sorted(found, key=lambda file: _natural(file.name))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _read_pictures(
    files: list[Path], size: int | None, fps: float | None, picture_fps: float | None
) -> Tensor:
    if picture_fps is not None:
        files = list(at_rate(((i / picture_fps, file) for i, file in enumerate(files)), fps))
    pictures = [picture(file, size) for file in files]
    shapes = {tuple(each.shape[1:]) for each in pictures}
    if len(shapes) != 1:
        raise BadEpisodeError(f"its images have {len(shapes)} different sizes: {sorted(shapes)}")
    return torch.stack(pictures)


def _outcome(name: str) -> bool | None:
    """What the nearest folder named after an outcome says."""
    words = [part.lower() for part in name.split("/")[:-1]]
    return next((OUTCOMES[word] for word in reversed(words) if word in OUTCOMES), None)
