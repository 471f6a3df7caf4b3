"""What every network that reads an image asks of it."""

from __future__ import annotations

import torch
from torch import Tensor


def check_picture(image: Tensor) -> None:
    """Refuse images that are not as recorded: scaled once already, they would be black.

    Raises:
        TypeError: if they are not uint8.
    """
    if image.dtype != torch.uint8:
        raise TypeError(
            f"image must be uint8 in 0..255, got {image.dtype}: pass the frame as it was "
            "recorded, the network scales it."
        )
