"""Confidence interval of the difference of two success rates over the same episodes."""

from __future__ import annotations

import math

import torch

from rftf_torchrl.functional._checks import require_bool, require_same_shape
from rftf_torchrl.functional.intervals import wilson_interval


def paired_difference_interval(
    a: torch.Tensor, b: torch.Tensor, confidence: float = 0.95
) -> tuple[float, float]:
    r"""Computes Newcombe's interval of the difference of two paired success rates.

    Of n pairs, e succeed in both, f in a only, g in b only and h in neither. With the Wilson
    intervals :math:`(l_a, u_a)` of :math:`p_a = (e + f) / n` and :math:`(l_b, u_b)` of
    :math:`p_b = (e + g) / n`, and their distances :math:`d = p - l`, :math:`d' = u - p`,

    .. math::
        \left( p_a - p_b - \sqrt{d_a^2 - 2 \phi d_a d'_b + d'^2_b},\;
               p_a - p_b + \sqrt{d'^2_a - 2 \phi d'_a d_b + d_b^2} \right),

    .. math::
        \phi = \frac{C}{\sqrt{(e + f)(g + h)(e + g)(f + h)}}, \quad
        C = \begin{cases}
            \max(eh - fg - n / 2,\; 0) & \text{if } eh > fg \\
            eh - fg & \text{otherwise,}
        \end{cases}

    where :math:`\phi = 0` if a margin is empty. The more the outcomes of the same episode agree,
    the narrower the interval is, compared to
    :func:`~rftf_torchrl.newcombe_interval` of independent episodes.

    Source: Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 1998, 17:2635, method 10.

    Args:
        a: outcomes of the n episodes in one condition, bool, [n].
        b: outcomes of the same episodes in the other condition, bool, [n].
        confidence: coverage, strictly between 0 and 1.

    Returns:
        ``(low, high)`` of the rate of a minus the rate of b.

    Raises:
        ValueError: if the shapes differ, there is no pair or ``confidence`` is outside (0, 1).
        TypeError: if the outcomes are not bool.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import paired_difference_interval
        >>> after = torch.tensor([True] * 48 + [False] * 2)
        >>> before = torch.tensor([True] * 36 + [False] * 12 + [True] * 2)
        >>> low, high = paired_difference_interval(after, before)
        >>> round(low, 4), round(high, 4)
        (0.0569, 0.3404)
    """
    require_same_shape(a, "a", b, "b")
    require_bool(a, "a")
    require_bool(b, "b")
    n = a.numel()
    if n == 0:
        raise ValueError(f"a has shape {list(a.shape)}; expected at least one pair of outcomes.")
    both, only_a = int((a & b).sum()), int((a & ~b).sum())
    only_b, neither = int((~a & b).sum()), int((~a & ~b).sum())
    in_a, in_b = both + only_a, both + only_b
    low_a, high_a = wilson_interval(in_a, n, confidence)
    low_b, high_b = wilson_interval(in_b, n, confidence)
    p_a, p_b = in_a / n, in_b / n
    margins = in_a * (n - in_a) * in_b * (n - in_b)
    agreement: float = both * neither - only_a * only_b
    if agreement > 0:
        agreement = max(agreement - n / 2, 0.0)
    phi = agreement / math.sqrt(margins) if margins else 0.0
    difference = (only_a - only_b) / n
    low = difference - _distance(p_a - low_a, high_b - p_b, phi)
    high = difference + _distance(high_a - p_a, p_b - low_b, phi)
    return low, high


def _distance(first: float, second: float, phi: float) -> float:
    return math.sqrt(first**2 - 2.0 * phi * first * second + second**2)
