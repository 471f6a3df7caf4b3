"""A form of the reward of a user's own."""

from __future__ import annotations

from torch import Tensor


def late(values: Tensor, truncated: Tensor, success: Tensor, *, cost: float) -> Tensor:
    return -cost * (truncated & ~success) * values
