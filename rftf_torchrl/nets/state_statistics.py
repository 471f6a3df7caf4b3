"""What standardises a state: its mean and deviation over the demonstrations."""

from __future__ import annotations

import torch
from torch import Tensor


def where_it_varies(spread: Tensor, least: float | Tensor) -> Tensor:
    """Returns a spread, with 1 where it is below `least`: what is constant is not stretched."""
    return torch.where(spread < least, torch.ones_like(spread), spread)


def set_statistics(
    state_mean: Tensor, state_std: Tensor, mean: Tensor, std: Tensor, least: float = 1e-3
) -> None:
    """Copies mean and deviation of a state into a module's buffers.

    Args:
        state_mean: buffer, float [S], written.
        state_std: buffer, float [S], written; 1 where the deviation is below `least`.
        mean: float [S].
        std: float [S].
        least: what counts as constant.

    Raises:
        ValueError: if a shape is wrong or a number is not finite.

    Example:
        >>> buffers = torch.zeros(2), torch.ones(2)
        >>> set_statistics(*buffers, torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
        >>> buffers[1]
        tensor([2., 1.])
    """
    for name, value in (("mean", mean), ("std", std)):
        if value.shape != state_mean.shape:
            raise ValueError(
                f"{name} must have shape {tuple(state_mean.shape)}, got {tuple(value.shape)}."
            )
        bad = (~torch.isfinite(value)).nonzero().flatten()
        if len(bad):
            raise ValueError(
                f"{name} is {float(value[bad[0]])} at index {int(bad[0])}, expected finite "
                "numbers: a single frame has no deviation, give more frames."
            )
    state_mean.copy_(mean)
    state_std.copy_(where_it_varies(std, least))
