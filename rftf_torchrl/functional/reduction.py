"""What becomes of one number each: their mean, their sum, or they themselves."""

from __future__ import annotations

from typing import Literal

import torch

Reduction = Literal["mean", "sum", "none"]


def reduced(
    each: torch.Tensor, mask: torch.Tensor | None = None, reduction: Reduction = "mean"
) -> torch.Tensor:
    """Reduces numbers that are 0 where the mask is False.

    Args:
        each: floating, any shape.
        mask: bool, same shape, True at what counts; None counts all.
        reduction: what to make of them.

    Returns:
        A scalar, 0 where nothing counts; with ``"none"`` the same numbers.

    Examples:
        >>> import torch
        >>> reduced(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([True, True, False]))
        tensor(1.5000)
    """
    if reduction == "none":
        return each
    if reduction == "sum":
        return each.sum()
    return each.mean() if mask is None else each.sum() / mask.sum().clamp_min(1)
