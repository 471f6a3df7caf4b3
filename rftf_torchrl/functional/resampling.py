"""The bootstrap as weights: how often each episode is in each resample."""

from __future__ import annotations

import torch

from rftf_torchrl.functional._checks import as_compute_dtype, require_confidence


def bootstrap_counts(count: int, resamples: int, generator: torch.Generator) -> torch.Tensor:
    r"""Draws how often each of n episodes is in each bootstrap resample of n episodes.

    A mean over resample r is then :math:`\frac{1}{n} \sum_i c_{ri} x_i`, and a statistic of pairs
    of independent samples, such as the area under the ROC curve, is bilinear in two such draws.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979.

    Args:
        count: number n of episodes.
        resamples: number R of resamples.
        generator: source of randomness, on the CPU.

    Returns:
        float64 [R, n]; rows sum to n.

    Raises:
        ValueError: if a number is below 1.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import bootstrap_counts
        >>> counts = bootstrap_counts(5, 3, torch.Generator().manual_seed(0))
        >>> counts.shape, counts.sum(-1).tolist()
        (torch.Size([3, 5]), [5.0, 5.0, 5.0])
    """
    for name, number in (("count", count), ("resamples", resamples)):
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1.")
    drawn = torch.randint(count, (resamples, count), generator=generator)
    counts = torch.zeros(resamples, count, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))


def percentile_interval(
    statistics: torch.Tensor, confidence: float = 0.95
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Computes the interval between the outer quantiles of a statistic over resamples.

    .. math::
        \left( Q_{(1 - c) / 2},\; Q_{(1 + c) / 2} \right)

    Source: the percentile interval, Efron, Tibshirani, "An Introduction to the Bootstrap", 1993,
    section 13.3. It is a little too narrow for few episodes, and has no width where all resamples
    agree, as for an area under the ROC curve of exactly 1.

    Args:
        statistics: the statistic in each resample, floating, [R, ...].
        confidence: coverage, strictly between 0 and 1.

    Returns:
        ``(low, high)``, each [...]; NaN where a resample is NaN.

    Raises:
        ValueError: if there is no resample or ``confidence`` is outside (0, 1).

    Examples:
        >>> import torch
        >>> from rftf_torchrl import percentile_interval
        >>> low, high = percentile_interval(torch.arange(101.0), confidence=0.9)
        >>> low.item(), high.item()
        (5.0, 95.0)
    """
    require_confidence(confidence)
    if statistics.ndim == 0 or not len(statistics):
        raise ValueError(
            f"statistics has shape {list(statistics.shape)}; expected [R, ...] with at least one "
            "resample."
        )
    statistics = as_compute_dtype(statistics, "statistics")
    tails = statistics.new_tensor([0.5 - 0.5 * confidence, 0.5 + 0.5 * confidence])
    low, high = torch.quantile(statistics, tails, dim=0)
    return low, high
