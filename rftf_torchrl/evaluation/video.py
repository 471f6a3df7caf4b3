"""Videos of episodes: write, caption with the value, put side by side."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import imageio.v2 as imageio
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from rftf_torchrl.files import whole_file

_GAP = 4
_WIDTH, _SECONDS = 480, 4


def write_video(frames: Tensor, path: str | Path, fps: float = 10) -> Path:
    """Write frames as an MP4 video (H.264, yuv420p) that browsers play, and as an animated WebP.

    The WebP, beside the MP4, is what a Markdown page shows. Frames that are narrower than 480
    pixels are enlarged by a whole factor, and frames that last less than 4 seconds are each shown
    a whole number of times. The last one stays for a second more.

    Args:
        frames: uint8 [T, 3, h, w]; an odd height or width is extended by one copied row or column,
            because the format needs even sizes.
        path: the MP4 file; it ends in ``.mp4``. Each file is written whole or not at all.
        fps: frames per second.

    Returns:
        The path.

    Raises:
        TypeError: if the frames are not uint8.
        OSError: if the disk is full.
        ValueError: if their shape is another, there is none, ``fps`` is not above 0 or the path
            ends in something else.
    """
    check_frames(frames, "frames")
    if Path(path).suffix != ".mp4":
        raise ValueError(f"the path {str(path)!r} does not end in '.mp4'.")
    if not 0 < fps < math.inf:
        raise ValueError(f"fps is {fps}, expected a number of frames a second above 0.")
    frames = enlarge(frames.cpu(), _WIDTH)
    height, width = frames.shape[-2:]
    if height % 2 or width % 2:
        extended = pad(frames.float(), (0, width % 2, 0, height % 2), mode="replicate")
        frames = extended.to(torch.uint8)
    times = torch.full([len(frames)], math.ceil(_SECONDS * fps / len(frames)))
    times[-1] += math.ceil(fps)
    pictures = frames.permute(0, 2, 3, 1).contiguous().numpy()
    first, *others = (Image.fromarray(picture) for picture in pictures)
    with whole_file(Path(path).with_suffix(".webp")) as temporary:
        first.save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=others,
            duration=[round(1000 * count / fps) for count in times.tolist()],
            loop=0,
        )
    with whole_file(path) as temporary:
        with imageio.get_writer(
            temporary,
            format="FFMPEG",
            mode="I",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=1,
            quality=8,
            output_params=["-movflags", "+faststart"],
        ) as writer:
            for picture, count in zip(pictures, times.tolist(), strict=True):
                for _ in range(count):
                    writer.append_data(picture)  # type: ignore[attr-defined]
        if b"moov" not in temporary.read_bytes():  # ffmpeg's errors are lost
            raise OSError(errno.ENOSPC, "ffmpeg could not write the end of the video")
    return Path(path)


def enlarge(frames: Tensor, width: int) -> Tensor:
    """Each pixel as a square, by the smallest whole factor that gives the width at least."""
    factor = math.ceil(width / frames.shape[-1])
    return frames.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def pane_width(panes: int) -> int:
    """The width of each of several videos side by side that are wide enough together."""
    return math.ceil((_WIDTH - (panes - 1) * _GAP) / panes)


def side_by_side(before: Tensor, after: Tensor) -> Tensor:
    """Put two videos next to each other; the shorter one waits at its last frame.

    Args:
        before: uint8 [T, 3, h, w], on the left.
        after: uint8 [S, 3, h, v], on the right.

    Returns:
        uint8 [max(T, S), 3, h, w + 4 + v], with a white gap.

    Raises:
        TypeError: if the frames are not uint8.
        ValueError: if a shape is another, or the heights differ.

    Example:
        >>> left, right = torch.zeros(2, 3, 8, 8).byte(), torch.zeros(5, 3, 8, 6).byte()
        >>> side_by_side(left, right).shape
        torch.Size([5, 3, 8, 18])
    """
    check_frames(before, "before")
    check_frames(after, "after")
    if before.shape[2] != after.shape[2]:
        raise ValueError(
            f"before is {before.shape[2]} and after is {after.shape[2]} pixels high; expected the "
            "same height."
        )
    length = max(len(before), len(after))
    gap = torch.full((length, 3, before.shape[2], _GAP), 255, dtype=torch.uint8)
    return torch.cat([_wait(before, length), gap, _wait(after, length)], -1)


def check_frames(frames: Tensor, name: str) -> None:
    """Raises where frames are not uint8 [T, 3, h, w] with at least one frame."""
    if frames.dtype != torch.uint8:
        raise TypeError(f"{name} has dtype {frames.dtype}; expected torch.uint8.")
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise ValueError(
            f"{name} has shape {list(frames.shape)}; expected [T, 3, height, width] with at least "
            "one frame."
        )


def _wait(frames: Tensor, length: int) -> Tensor:
    return torch.cat([frames, frames[-1:].expand(length - len(frames), -1, -1, -1)])
