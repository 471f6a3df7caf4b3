"""Confidence interval of the mean of a few bounded numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from rftf_torchrl.functional._checks import require_confidence

_HALVINGS = 50


def bounded_mean_interval(
    values: Sequence[float], low: float, high: float, confidence: float = 0.95
) -> tuple[float, float]:
    r"""Computes the empirical likelihood interval of the mean of numbers that have bounds.

    It holds every mean :math:`\mu` that some distribution on [a, b] has under which the n numbers
    are not too unlikely. With z the two-sided normal quantile, the upper end is the largest
    :math:`\mu` with

    .. math::
        \max_{0 \le \lambda \le 1} \sum_{i=1}^n
            \log\left( 1 - \lambda \frac{x_i - \mu}{b - \mu} \right) \le \frac{z^2}{2},

    and the lower end that of the numbers and bounds with the other sign. Unlike
    :math:`\bar x \pm z\,\mathrm{s.e.}` it stays in [a, b], and it has a width where all numbers are
    the same. For many numbers both are equal; for numbers that are only a or b, it is the interval
    of the binomial likelihood ratio.

    Source: Owen, "Empirical likelihood ratio confidence intervals for a single functional",
    Biometrika 1988, 75:237; the bounds count as points where more might lie, as in Cappé et al.,
    "Kullback-Leibler upper confidence bounds", Annals of Statistics 2013, 41:1516, section 6.

    Args:
        values: independent measurements.
        low: the least number a that can occur.
        high: the largest number b that can occur.
        confidence: coverage, strictly between 0 and 1.

    Returns:
        ``(low, high)``, NaN without a number.

    Raises:
        ValueError: for a number outside [a, b] or ``confidence`` outside (0, 1).

    Examples:
        >>> from rftf_torchrl import bounded_mean_interval
        >>> [round(bound, 2) for bound in bounded_mean_interval([5, 5, 5, 5], 0, 5)]
        [3.09, 5.0]
        >>> [round(bound, 2) for bound in bounded_mean_interval([0, 0, 0, 2], 0, 5)]
        [0.03, 2.28]
    """
    require_confidence(confidence)
    x = torch.as_tensor(values, dtype=torch.float64)
    if not len(x):
        return math.nan, math.nan
    outside = ~((x >= low) & (x <= high))
    if outside.any():
        index = int(outside.nonzero()[0])
        raise ValueError(
            f"values[{index}] is {x[index].item()}; expected a number in [{low}, {high}]."
        )
    bound = NormalDist().inv_cdf(0.5 + 0.5 * confidence) ** 2 / 2
    distinct, counts = x.unique(return_counts=True)
    ends = -_upper_end(-distinct, counts, -low, bound), _upper_end(distinct, counts, high, bound)
    return max(float(low), ends[0]), min(float(high), ends[1])


def _upper_end(x: Tensor, counts: Tensor, high: float, bound: float) -> float:
    """The largest mean whose log-likelihood ratio is at most ``bound``, by bisection."""
    inside, outside = float((counts * x).sum() / counts.sum()), high
    for _ in range(_HALVINGS):
        mean = (inside + outside) / 2
        if mean < high and _log_ratio((x - mean) / (high - mean), counts) <= bound:
            inside = mean
        else:
            outside = mean
    return inside


def _log_ratio(distance: Tensor, counts: Tensor) -> float:
    """The largest sum of log(1 - lambda distance), which is concave in lambda, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (counts * distance / (1 - middle * distance)).sum() < 0:
            low = middle
        else:
            high = middle
    return float((counts * torch.log1p(-low * distance)).sum())
