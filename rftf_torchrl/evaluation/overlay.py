"""Caption a video with its instruction, its outcome and the value so far."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rftf_torchrl.evaluation.video import check_frames

Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont

_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (215, 215, 215)
_GREEN, _RED, _BLUE = (0, 128, 94), (196, 78, 0), (0, 114, 178)


def overlay_value(
    frames: Tensor, values: Tensor | None, *, success: bool | None, title: str, label: str = ""
) -> Tensor:
    """Add a strip below each frame: the instruction, the outcome and the value up to now.

    The curve's axis covers the values of the whole video and at least 0 to 1.

    Args:
        frames: uint8 [T, 3, h, w].
        values: value of each frame's state, float [T]; ``None`` leaves the curve out.
        success: how the episode ends; ``None`` where that is not known.
        title: the instruction; it wraps at the video's width.
        label: what stands before the outcome, e.g. the policy's name.

    Returns:
        uint8 [T, 3, h + strip, w]; the strip's height depends on the width alone.

    Raises:
        TypeError: if the frames are not uint8.
        ValueError: if the frames have another shape, or the values' number is another.

    Example:
        >>> frames = torch.zeros(3, 3, 96, 96, dtype=torch.uint8)
        >>> values = torch.tensor([0.0, 0.5, 1.0])
        >>> overlay_value(frames, values, success=True, title="open the drawer").shape
        torch.Size([3, 3, 196, 96])
    """
    check_frames(frames, "frames")
    if values is not None:
        values = values.reshape(-1).detach().cpu().double()
        if len(values) != len(frames):
            raise ValueError(
                f"values has {len(values)} entries for {len(frames)} frames; expected one each."
            )
    width = frames.shape[-1]
    size = max(11, width // 15)
    font = ImageFont.load_default(size)
    line = round(1.35 * size)
    text_height, plot_height = 3 * line + size // 2, round(4.5 * size)
    strip = text_height + (plot_height if values is not None else 0)
    strip += strip % 2
    caption = Image.new("RGB", (width, strip), _PAPER)
    draw = ImageDraw.Draw(caption)
    margin = max(2, size // 3)
    words = _wrap(title, font, width - 2 * margin)[:2]
    for number, row in enumerate(words):
        draw.text((margin, margin + number * line), row, fill=_INK, font=font)
    outcome = {True: "success", False: "failure", None: ""}[success]
    text = ": ".join(filter(None, (label, outcome)))
    colour = {True: _GREEN, False: _RED, None: _INK}[success]
    draw.text((margin, margin + len(words) * line), text, fill=colour, font=font)
    strips = []
    for now in range(len(frames)):
        image = caption.copy()
        if values is not None:
            box = (margin, text_height, width - margin - 1, strip - margin - 1)
            _draw_curve(ImageDraw.Draw(image), values.numpy(), now, box, font)
        strips.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.cat([frames.cpu(), torch.stack(strips)], dim=2)


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    values: np.ndarray,
    now: int,
    box: tuple[int, int, int, int],
    font: Font,
) -> None:
    left, top, right, bottom = box
    low, high = min(0.0, values.min()), max(1.0, values.max())

    def point(t: int) -> tuple[float, float]:
        x = left + 3 + (right - left - 6) * t / max(len(values) - 1, 1)
        return x, bottom - 3 - (bottom - top - 6) * (values[t] - low) / (high - low)

    draw.rectangle(box, outline=_FAINT)
    for level in (0.0, 1.0):
        y = bottom - 3 - (bottom - top - 6) * (level - low) / (high - low)
        draw.line([(left, y), (right, y)], fill=_FAINT)
    draw.text((left + 4, top + 4), f"V {round(values[now], 2) + 0.0:.2f}", fill=_BLUE, font=font)
    if now:
        draw.line([point(t) for t in range(now + 1)], fill=_BLUE, width=2)
    x, y = point(now)
    draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_BLUE)


def _wrap(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
