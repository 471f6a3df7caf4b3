"""Frames of a video, decoded with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rftf_torchrl.data.readers.episode import BadEpisodeError
from rftf_torchrl.data.readers.pictures import at_rate, resized
from rftf_torchrl.optional import optional_module

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "matroska",
    ".avi": "avi",
    ".gif": "gif",
}
"""By its suffix, the format that a video is opened as. A video that is something else, such as a
playlist that names other files, is refused."""


def read_video(
    path: Path,
    *,
    size: int | None = None,
    fps: float | None = None,
    start: float = 0.0,
    count: int | None = None,
) -> Tensor:
    """Decode a video, or some frames of it, turned as its metadata say.

    Args:
        path: the file.
        size: edge of the square images in pixels; None for the video's size.
        fps: frames per second to keep, by their own times, and the last one; None for all.
        start: where to start, in seconds.
        count: frames of the video from there on; None for all.

    Returns:
        uint8 [T, 3, h, w].

    Raises:
        BadEpisodeError: where the file cannot be opened or decoded, or ends early.
        ModuleNotFoundError: without ``av``.
    """
    av = optional_module("av", "video", "reading videos")
    try:
        _check_avi_size(path)
        with av.open(
            str(path),
            format=CONTAINERS[path.suffix.lower()],
            options={"protocol_whitelist": "file"},
        ) as film:
            if not film.streams.video:
                raise BadEpisodeError("it has no video stream")
            frames = [
                resized(frame_tensor(frame), size)
                for frame in at_rate(_timed(film, film.streams.video[0], start, count), fps)
            ]
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if isinstance(error, BadEpisodeError):
            raise
        why = getattr(error, "strerror", None) or error
        raise BadEpisodeError(f"{path.name} cannot be decoded ({why})") from error
    sizes = {tuple(frame.shape[-2:]) for frame in frames}
    if len(sizes) != 1:
        raise BadEpisodeError(f"its images have {len(sizes)} different sizes: {sorted(sizes)}")
    return torch.cat(frames)


def _timed(film: Any, stream: Any, start: float, count: int | None) -> Iterator[tuple[float, Any]]:
    """Times and frames of a stream from ``start`` on; raises where they end early."""
    stream.thread_type = "AUTO"
    step = float(1 / (stream.average_rate or 30))
    if start:
        film.seek(int(start / stream.time_base), stream=stream)
    found, end = 0, start
    for frame in film.decode(stream):
        time = float(found * step if frame.time is None else frame.time)
        if start and time < start - step / 2:
            continue
        if frame.is_corrupt:
            raise BadEpisodeError(f"its frame at {time:.2f} s is damaged")
        end = time + max(step, float((frame.duration or 0) * frame.time_base))
        yield time, frame
        found += 1
        if found == count:
            return
    if count is not None:
        raise BadEpisodeError(f"it ends after {found} frames from {start:.2f} s, expected {count}")
    if not found:
        raise BadEpisodeError("no frame could be decoded")
    if (stated := _seconds(film, stream)) - end > max(3 * step, 0.25):
        raise BadEpisodeError(
            f"it ends at {end:.2f} s of the {stated:.2f} s that its header says: it is cut "
            "off; copy or download it again"
        )


def _check_avi_size(path: Path) -> None:
    """Refuse an AVI file shorter than its header says, which would play as far as it goes."""
    if path.suffix.lower() != ".avi":
        return
    with path.open("rb") as file:
        head = file.read(8)
    size, stated = path.stat().st_size, 8 + int.from_bytes(head[4:], "little")
    if size < stated:
        raise BadEpisodeError(
            f"it has {size} bytes of the {stated} that its header says: it is cut off; copy or "
            "download it again"
        )


def _seconds(film: Any, stream: Any) -> float:
    """When a video ends by its header; 0 where that is not said for the images alone."""
    if stream.duration is not None:
        begin = stream.start_time or 0
        return float((begin + stream.duration) * stream.time_base)
    if film.duration is not None and len(film.streams) == 1:
        return float((film.start_time or 0) + film.duration) / 1e6
    return 0.0


def frame_tensor(frame: Any) -> Tensor:
    """A decoded frame, uint8 [1, 3, h, w]."""
    if frame.rotation % 90:
        raise BadEpisodeError(f"it is turned by {frame.rotation} degrees, expected quarter turns")
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None]
    return torch.rot90(pixels, frame.rotation // 90, (-2, -1))
