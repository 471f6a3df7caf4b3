"""Input checks that the functions on ordered frames share."""

from __future__ import annotations

import torch


def as_compute_dtype(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Returns a floating tensor in float64 if it already is, in float32 otherwise."""
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name} has dtype {tensor.dtype}; expected a floating dtype. Convert it with "
            f"{name}.float()."
        )
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def require_same_shape(
    first: torch.Tensor, first_name: str, other: torch.Tensor, name: str
) -> None:
    """Raises a ValueError that names both shapes if they differ."""
    if first.shape != other.shape:
        raise ValueError(
            f"{name} has shape {list(other.shape)} and {first_name} has shape "
            f"{list(first.shape)}; expected the same shape."
        )


def require_bool(tensor: torch.Tensor, name: str) -> None:
    """Raises a TypeError if the tensor is not boolean."""
    if tensor.dtype != torch.bool:
        raise TypeError(
            f"{name} has dtype {tensor.dtype}; expected torch.bool. Convert it with {name}.bool()."
        )


def require_finite(tensor: torch.Tensor, name: str, valid: torch.Tensor | None = None) -> None:
    """Raises a ValueError that names the first non-finite entry among the valid ones."""
    bad = ~torch.isfinite(tensor)
    if valid is not None:
        bad = bad & valid
    if bad.any():
        index = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name}{index} is {tensor[tuple(index)].item()}; expected finite numbers "
            f"({int(bad.sum())} of {bad.numel()} entries are not)."
        )


def require_confidence(confidence: float) -> None:
    """Raises ValueError where a confidence is not strictly between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; expected a number in (0, 1), as 0.95.")


def check_frames(
    values: torch.Tensor, mask: torch.Tensor | None, name: str = "values"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Checks values of ordered frames and keeps the rows that hold at least one pair.

    Args:
        values: floating, [..., n].
        mask: bool, [..., n], ``True`` at real frames, or ``None`` if all are.
        name: what errors call the values.

    Returns:
        The values [rows, n] in float32 or float64, zero at padding, and the mask [rows, n]. Under
        ``torch.compile``, where no shape depends on a number, all rows are kept.

    Raises:
        ValueError: if the shapes differ, a real frame's value is not finite, or no row has two
            real frames.
        TypeError: if a dtype is wrong.
    """
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    require_same_shape(values, name, mask, "mask")
    require_bool(mask, "mask")
    values = as_compute_dtype(values, name)
    if values.ndim == 0:
        raise ValueError(f"{name} has shape []; expected [..., n] with the frames in time order.")
    if torch.compiler.is_compiling():
        frames = values.shape[-1]
        values = torch.where(mask, values, torch.zeros_like(values))
        return values.reshape(-1, frames), mask.reshape(-1, frames)
    require_finite(values, name, mask)
    shape = list(values.shape)
    frames = values.shape[-1]
    values = torch.where(mask, values, torch.zeros_like(values))
    if frames:
        values, mask = values.reshape(-1, frames), mask.reshape(-1, frames)
        rows = mask.sum(-1) >= 2
        values, mask = values[rows], mask[rows]
    if values.numel() == 0:
        raise ValueError(
            f"{name} has shape {shape} and no row with two real frames; an order needs at least "
            "one pair. Check the mask (True = real frame) or pass longer trajectories."
        )
    return values, mask


def later_pairs(mask: torch.Tensor) -> torch.Tensor:
    """Marks the pairs i < j of real frames: bool [rows, n] to bool [rows, n, n] at [row, i, j]."""
    return (mask.unsqueeze(-1) & mask.unsqueeze(-2)).triu(diagonal=1)


def mean_over_rows(each: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """The mean of what rows [rows] with one pair or more, int [rows], have."""
    if not torch.compiler.is_compiling():
        return each.mean()
    counted = pairs > 0
    total = torch.where(counted, each, torch.zeros_like(each)).sum()
    return total / counted.sum().clamp_min(1)
