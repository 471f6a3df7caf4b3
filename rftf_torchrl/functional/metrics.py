"""How well values follow time, and how well scores separate two classes."""

from __future__ import annotations

import torch

from rftf_torchrl.functional._checks import (
    as_compute_dtype,
    check_frames,
    later_pairs,
    mean_over_rows,
    require_bool,
    require_finite,
    require_same_shape,
)


def pairwise_accuracy(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    r"""Computes the share of frame pairs whose later frame has the higher value.

    .. math::
        A = \frac{1}{\binom{n}{2}} \sum_{i<j}
            \left( [V_j > V_i] + \tfrac{1}{2} [V_j = V_i] \right)

    Rows are averaged; rows with fewer than two real frames do not count. A row of equal values
    gives 0.5, as guessing does.

    Source: the concordance probability; (1 + Kendall's tau-a) / 2 (Kendall, Biometrika 1938).

    Args:
        values: scores of the frames in time order, floating, [..., n].
        mask: bool, [..., n], ``True`` at real frames; ``None`` means all.

    Returns:
        The accuracy in [0, 1], a scalar in float32, or float64 if ``values`` is float64.

    Raises:
        ValueError: if the shapes differ, a real frame's value is not finite, or no row has two
            real frames.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import pairwise_accuracy
        >>> round(pairwise_accuracy(torch.tensor([0.0, 1.0, 1.0, 3.0])).item(), 4)
        0.9167
    """
    values, mask = check_frames(values, mask)
    pairs = later_pairs(mask)
    order = torch.sign(values.unsqueeze(-2) - values.unsqueeze(-1)) * pairs
    count = pairs.sum((-2, -1))
    return mean_over_rows(0.5 + 0.5 * order.sum((-2, -1)) / count.clamp_min(1), count)


def value_order_correlation(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    r"""Computes Spearman's rank correlation between the values and time.

    .. math::
        \rho = \operatorname{corr}(\operatorname{rank}(V_1, \dots, V_n), (1, \dots, n))

    Equal values share their mean rank. Rows are averaged; rows with fewer than two real frames
    do not count. A row of equal values has no order and gives 0.

    Source: value-order correlation (VOC) of GVL (Ma et al. 2024, arXiv 2411.04549). VOC is
    written there for ``argsort(values)``; without ties the two are the same number.

    Args:
        values: scores of the frames in time order, floating, [..., n].
        mask: bool, [..., n], ``True`` at real frames; ``None`` means all.

    Returns:
        The correlation in [-1, 1], a scalar in float32, or float64 if ``values`` is float64.

    Raises:
        ValueError: if the shapes differ, a real frame's value is not finite, or no row has two
            real frames.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import value_order_correlation
        >>> value_order_correlation(torch.tensor([0.0, 0.2, 0.1, 0.4], dtype=torch.float64)).item()
        0.8
    """
    values, mask = check_frames(values, mask)
    difference = values.unsqueeze(-1) - values.unsqueeze(-2)
    above_or_equal = 0.5 * (torch.sign(difference) + 1.0) * mask.unsqueeze(-2)
    value_rank = above_or_equal.sum(-1)
    time_rank = (mask.cumsum(-1) - 0.5).to(values.dtype)
    middle = 0.5 * mask.sum(-1, keepdim=True)
    value_rank = (value_rank - middle) * mask
    time_rank = (time_rank - middle) * mask
    covariance = (value_rank * time_rank).sum(-1)
    spread = (value_rank.square().sum(-1) * time_rank.square().sum(-1)).sqrt()
    return _zero_if_constant(covariance, spread).mean()


def kendall_tau(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    r"""Computes Kendall's tau-b between the values and time.

    .. math::
        \tau_b = \frac{C - D}{\sqrt{\binom{n}{2} \left( \binom{n}{2} - E \right)}}

    with C pairs in time order, D pairs against it and E pairs of equal values (time has no
    ties). Rows are averaged; rows with fewer than two real frames do not count. A row of equal
    values has no order and gives 0.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 1945.

    Args:
        values: scores of the frames in time order, floating, [..., n].
        mask: bool, [..., n], ``True`` at real frames; ``None`` means all.

    Returns:
        The correlation in [-1, 1], a scalar in float32, or float64 if ``values`` is float64.

    Raises:
        ValueError: if the shapes differ, a real frame's value is not finite, or no row has two
            real frames.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import kendall_tau
        >>> round(kendall_tau(torch.tensor([0.0, 0.2, 0.1, 0.4])).item(), 4)
        0.6667
    """
    values, mask = check_frames(values, mask)
    pairs = later_pairs(mask)
    order = torch.sign(values.unsqueeze(-2) - values.unsqueeze(-1)) * pairs
    untied = order.abs().sum((-2, -1))
    total = pairs.sum((-2, -1)).to(values.dtype)
    return _zero_if_constant(order.sum((-2, -1)), (total * untied).sqrt()).mean()


def roc_auc(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    r"""Computes the area under the ROC curve of scores for two classes.

    .. math::
        \mathrm{AUC} = P(s^+ > s^-) + \tfrac{1}{2} P(s^+ = s^-)

    for a random positive and a random negative: the Mann-Whitney statistic divided by the
    number of pairs. Equal scores everywhere give 0.5.

    Source: Hanley, McNeil, Radiology 1982; ranks with ties as Mann, Whitney 1947.

    Args:
        scores: floating, any shape, higher for the positive class.
        labels: bool, same shape, ``True`` for the positive class.

    Returns:
        The area in [0, 1], a scalar in float32, or float64 if ``scores`` is float64.

    Raises:
        ValueError: if shapes differ, a score is not finite or a class is missing.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import roc_auc
        >>> scores = torch.tensor([0.1, 0.4, 0.35, 0.8])
        >>> roc_auc(scores, torch.tensor([False, False, True, True])).item()
        0.75
    """
    require_same_shape(scores, "scores", labels, "labels")
    require_bool(labels, "labels")
    scores = as_compute_dtype(scores, "scores")
    require_finite(scores, "scores")
    positives = int(labels.sum())
    negatives = labels.numel() - positives
    if not positives or not negatives:
        raise ValueError(
            f"labels has {positives} positives and {negatives} negatives; the area under the ROC "
            "curve needs at least one of each."
        )
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    rank = counts.cumsum(0).double() - 0.5 * (counts - 1)
    wins: torch.Tensor = rank[inverse][labels].sum() - 0.5 * positives * (positives + 1)
    return (wins / (positives * negatives)).to(scores.dtype)


def _zero_if_constant(numerator: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    constant = spread == 0
    ratio = numerator / torch.where(constant, torch.ones_like(spread), spread)
    return torch.where(constant, torch.zeros_like(ratio), ratio)
