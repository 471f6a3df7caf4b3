"""What the readers do to images and their times, the same for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from rftf_torchrl.data.readers.episode import BadEpisodeError

Frame = TypeVar("Frame")


def resized(frames: Tensor, size: int | None) -> Tensor:
    """Frames at the size asked for; the whole image, squeezed where it is not square.

    Args:
        frames: uint8 [T, 3, h, w].
        size: edge of the square in pixels, None for the size that they have.

    Returns:
        uint8 [T, 3, size, size].

    Example:
        >>> resized(torch.full((2, 3, 6, 8), 7, dtype=torch.uint8), 4)[0, 0, 0].tolist()
        [7, 7, 7, 7]
    """
    if size is None or frames.shape[-2:] == (size, size):
        return frames
    return interpolate(frames, (size, size), mode="bilinear", antialias=True)


def at_rate(frames: Iterable[tuple[float, Frame]], fps: float | None) -> Iterator[Frame]:
    """Keep so many frames per second, by their times, and the last one, which shows the end.

    A source with fewer frames keeps all of its own; none is repeated.

    Args:
        frames: time in seconds, not falling, and frame.
        fps: frames per second; None for all.

    Yields:
        The frames that are kept.

    Example:
        >>> list(at_rate(((i / 30, i) for i in range(8)), 10))
        [0, 3, 6, 7]
    """
    begin: float | None = None
    left_out: list[Frame] = []
    kept = 0
    for time, frame in frames:
        begin = time if begin is None else begin
        if fps is None or (time - begin) * fps >= kept - 0.05:
            yield frame
            left_out = []
            kept = 0 if fps is None else int((time - begin) * fps + 0.05) + 1
        else:
            left_out = [frame]
    yield from left_out


def picture(source: Any, size: int | None) -> Tensor:
    """Decode one image: turned as its EXIF says, grey as colour, without transparency.

    Args:
        source: a file or a file object.
        size: see :func:`resized`.

    Returns:
        uint8 [3, h, w].

    Raises:
        BadEpisodeError: where it is no image, or damaged.
    """
    try:
        with Image.open(source) as opened:
            pixels = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        name = f"{source.name} is" if isinstance(source, Path) else "it has"
        raise BadEpisodeError(f"{name} no image, or a damaged one ({error})") from error
    return resized(torch.from_numpy(pixels).permute(2, 0, 1)[None], size)[0].contiguous()


def file_version(*files: Path) -> str:
    """Sizes and times of files: a text that changes when they are written again."""
    stats = [file.stat() for file in files]
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
