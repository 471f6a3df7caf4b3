"""Frames as they come from a camera, a URL or a video file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

from torch import Tensor

from rftf_torchrl.data.readers.decode import CONTAINERS, frame_tensor
from rftf_torchrl.optional import optional_module

T = TypeVar("T")


class StreamError(ValueError):
    """A camera, URL or video that gives no frames."""


def stream_frames(source: str, *, timeout: float = 10.0) -> Iterator[tuple[float, Tensor]]:
    """Go through the frames of a camera, a URL or a video file.

    A camera and a URL continue while a frame is processed: the next frame is then the newest one,
    and those in between are skipped. Of a file every frame comes.

    Args:
        source: number of a camera (``"0"``, with Video4Linux), a URL, or a file.
        timeout: seconds after which a camera or a URL that gives nothing is an error.

    Yields:
        Seconds since the first frame, and the frame, uint8 [3, h, w].

    Raises:
        StreamError: where it cannot be opened or decoded, or gives no frame.
        ModuleNotFoundError: without ``av``.
    """
    av = optional_module("av", "video", "watching a video")
    device = f"/dev/video{source}" if source.isdecimal() else source
    live, settings = True, dict[str, Any](timeout=timeout)
    if device.startswith("/dev/"):
        settings["format"] = "v4l2"
    elif "://" not in source and Path(source).suffix.lower() in CONTAINERS:
        live, settings["options"] = False, {"protocol_whitelist": "file"}
        settings["format"] = CONTAINERS[Path(source).suffix.lower()]
    elif "://" not in source:
        raise StreamError(
            f"the source {source!r} is no number of a camera, no URL, and no file that ends in "
            f"{', '.join(CONTAINERS)}"
        )

    def decoded() -> Iterator[tuple[float, Tensor]]:
        try:
            with av.open(device, **settings) as film:
                if not film.streams.video:
                    raise StreamError(f"{source} has no video stream")
                first = None
                for frame in film.decode(video=0):
                    now = time.monotonic() if frame.time is None else float(frame.time)
                    first = now if first is None else first
                    yield now - first, frame_tensor(frame)[0]
                if first is None:
                    raise StreamError(f"no frame could be decoded of {source}")
        except (av.error.FFmpegError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise StreamError(f"{source} cannot be watched ({why})") from error

    return newest(decoded()) if live else decoded()


def newest(source: Iterable[T]) -> Iterator[T]:
    """The newest item of a source that does not wait; older items are dropped.

    Args:
        source: is gone through in a thread.

    Yields:
        Items in their order, each at most once, the last one among them.

    Raises:
        Exception: what the source raises, after its last item.
    """
    waiting: Queue[T] = Queue()
    ended: list[Exception | None] = []
    left = Event()

    def read() -> None:
        try:
            for item in source:
                with waiting.mutex:
                    waiting.queue.clear()
                waiting.put(item)
                if left.is_set():
                    break
        except Exception as error:
            ended.append(error)
        else:
            ended.append(None)

    Thread(target=read, daemon=True).start()
    try:
        while True:
            over = bool(ended)
            try:
                yield waiting.get(timeout=0.05)
            except Empty:
                if over:
                    break
    finally:
        left.set()
    if ended[0] is not None:
        raise ended[0]
