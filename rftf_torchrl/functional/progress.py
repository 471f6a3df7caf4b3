"""How closely values keep to the true progress of an episode."""

from __future__ import annotations

import torch

from rftf_torchrl.functional._checks import (
    as_compute_dtype,
    check_frames,
    require_finite,
    require_same_shape,
)


def negative_step_share(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    r"""Computes the share of steps that lose value.

    .. math::
        S = \frac{1}{n - 1} \sum_{t=1}^{n-1} [V_{t+1} < V_t]

    A step without a change loses nothing, so a row of equal values gives 0. Rows are averaged;
    rows with fewer than two real frames do not count.

    Source: ours; in a reward of value differences these are the steps with a negative reward.

    Args:
        values: scores of the frames in time order, floating, [..., n].
        mask: bool, [..., n], ``True`` at real frames; ``None`` means all. A step goes from one
            real frame to the next real one.

    Returns:
        The share in [0, 1], a scalar in float32, or float64 if ``values`` is float64.

    Raises:
        ValueError: if the shapes differ, a real frame's value is not finite, or no row has two
            real frames.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import negative_step_share
        >>> negative_step_share(torch.tensor([0.0, 0.2, 0.1, 0.1, 0.4])).item()
        0.25
    """
    values, mask = check_frames(values, mask)
    real_first = torch.sort((~mask).to(torch.uint8), dim=-1, stable=True).indices
    values = values.gather(-1, real_first)
    steps = mask.sum(-1) - 1
    is_step = torch.arange(values.shape[-1] - 1, device=values.device) < steps.unsqueeze(-1)
    lost = (values.diff(dim=-1) < 0) & is_step
    return (lost.sum(-1).to(values.dtype) / steps).mean()


def calibration_curve(
    values: torch.Tensor, progress: torch.Tensor, bins: int = 10
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Computes the mean progress of the frames that have about the same value.

    With B bins of equal width over [0, 1], of which the first also takes the values below 0 and
    the last those above 1, and the frames :math:`F_b` of bin b,

    .. math::
        \bar V_b = \frac{1}{|F_b|} \sum_{t \in F_b} V_t, \qquad
        \bar p_b = \frac{1}{|F_b|} \sum_{t \in F_b} p_t .

    A value that is calibrated has :math:`\bar p_b \approx \bar V_b` in every bin. A value on the
    edge of two bins belongs to the lower one.

    Source: the reliability diagram, DeGroot, Fienberg, The Statistician 1983, with progress instead
    of the outcome.

    Args:
        values: floating, any shape.
        progress: true progress in [0, 1], floating, same shape.
        bins: number of bins.

    Returns:
        Mean values [bins], mean progress [bins], both NaN where a bin is empty, in float32, or
        float64 if ``values`` is float64, and the numbers of frames, int64 [bins].

    Raises:
        ValueError: if the shapes differ, there is no frame, a number is not finite, progress is
            outside [0, 1] or ``bins`` is below 1.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import calibration_curve
        >>> values = torch.tensor([-0.25, 0.25, 0.75, 1.25])
        >>> value, progress, frames = calibration_curve(values, torch.linspace(0, 1, 4), bins=2)
        >>> value.tolist(), frames.tolist()
        ([0.0, 1.0], [2, 2])
    """
    value_sums, progress_sums, frames = calibration_sums(values, progress, bins)
    return value_sums / frames, progress_sums / frames, frames


def calibration_error(values: torch.Tensor, progress: torch.Tensor, bins: int = 10) -> torch.Tensor:
    r"""Computes how far values are from the mean progress at that value.

    .. math::
        E = \sum_b \frac{|F_b|}{N} \, |\bar V_b - \bar p_b|

    with the bins of :func:`~rftf_torchrl.calibration_curve`; empty ones do not count.
    It is at most the mean of :math:`|V_t - p_t|`, in which deviations do not cancel.

    Source: the expected calibration error, Naeini, Cooper, Hauskrecht, AAAI 2015.

    Args:
        values: floating, any shape.
        progress: true progress in [0, 1], floating, same shape.
        bins: number of bins.

    Returns:
        The error, a scalar in float32, or float64 if ``values`` is float64.

    Raises:
        ValueError: as :func:`~rftf_torchrl.calibration_curve`.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import calibration_error
        >>> progress = torch.linspace(0, 1, 5)
        >>> calibration_error(progress, progress).item()
        0.0
        >>> round(calibration_error(progress + 0.2, progress).item(), 4)
        0.2
    """
    value_sums, progress_sums, frames = calibration_sums(values, progress, bins)
    return (value_sums - progress_sums).abs().sum() / frames.sum()


def calibration_sums(
    values: torch.Tensor, progress: torch.Tensor, bins: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums of the values and of the progress, and the number of frames, by bin: each [bins]."""
    require_same_shape(values, "values", progress, "progress")
    values = as_compute_dtype(values, "values").flatten()
    progress = as_compute_dtype(progress, "progress").flatten().to(values.dtype)
    require_finite(values, "values")
    require_finite(progress, "progress")
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1.")
    if not len(values):
        raise ValueError("values is empty; calibration needs at least one frame.")
    if progress.min() < 0 or progress.max() > 1:
        raise ValueError(
            f"progress goes from {progress.min().item():.4g} to {progress.max().item():.4g}; "
            "expected numbers in [0, 1]."
        )
    edges = torch.linspace(0, 1, bins + 1, dtype=values.dtype, device=values.device)[1:-1]
    where = torch.bucketize(values, edges)
    zeros = values.new_zeros(bins)
    frames = torch.bincount(where, minlength=bins)
    return zeros.index_add(0, where, values), zeros.index_add(0, where, progress), frames
