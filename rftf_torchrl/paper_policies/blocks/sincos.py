"""Fixed two-dimensional position embeddings."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_2d(grid: int, dim: int) -> Tensor:
    """Sine and cosine of column, then of row, of the cells of a square grid, row by row.

    Args:
        grid: cells along an edge.
        dim: features of a position, a multiple of 4.

    Returns:
        float32 [grid * grid, dim].
    """
    frequency = 10000.0 ** (-4 * torch.arange(dim // 4, dtype=torch.float64) / dim)
    cell = torch.arange(grid * grid, dtype=torch.float64)
    parts = []
    for position in (cell % grid, cell.div(grid, rounding_mode="floor")):
        angle = position[:, None] * frequency
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1).float()
