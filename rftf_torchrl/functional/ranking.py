"""The loss that teaches a value model the temporal order of frames."""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from rftf_torchrl.functional._checks import (
    check_frames,
    later_pairs,
    mean_over_rows,
    require_same_shape,
)


def temporal_ranking_loss(
    values: torch.Tensor, mask: torch.Tensor | None = None, *, places: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Computes the pairwise ranking loss of frames against their temporal order.

    For the :math:`n` real frames of one row,

    .. math::
        L = -\frac{1}{\binom{n}{2}} \sum_{i<j} \log \operatorname{sigmoid}(V_j - V_i),

    and the result is the mean of :math:`L` over the rows with at least two real frames. A row
    whose values are all equal has the loss :math:`\log 2`.

    This asks a later frame to score higher, by as much as possible. With places :math:`p`, a pair
    has the target :math:`y_{ij} = \operatorname{sigmoid}(p_j - p_i)` instead of 1:

    .. math::
        L = -\frac{1}{\binom{n}{2}} \sum_{i<j}
            y_{ij} \log \operatorname{sigmoid}(V_j - V_i)
            + (1 - y_{ij}) \log \operatorname{sigmoid}(V_i - V_j),

    which is least where the values are the places, up to a constant.

    Source: RFTF (Shu, Lin, Wang, arXiv 2505.19767), the loss of the value model. The places are
    ours, after TimeRewarder (Liu et al., arXiv 2509.26627), which regresses pairs' distances.

    Args:
        values: scores of the frames in time order, floating, [..., n]. bfloat16 and float16 are
            computed in float32.
        mask: bool, [..., n], ``True`` at real frames. Padded frames have no influence, whatever
            their value. ``None`` means that all frames are real.

        places: what the frames should score, up to a constant, floating, [..., n]; None for any
            values in the right order.

    Returns:
        The loss, a scalar of dtype float32, or float64 if ``values`` is float64.

    Raises:
        ValueError: if the shapes differ, a real frame's value or place is not finite (its index is
            named), or no row has two real frames.
        TypeError: if ``values`` or ``places`` is not floating or ``mask`` is not bool.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import temporal_ranking_loss
        >>> ordered, reversed_ = torch.tensor([0.0, 2.0, 4.0]), torch.tensor([4.0, 2.0, 0.0])
        >>> round(temporal_ranking_loss(ordered).item(), 4)
        0.0907
        >>> round(temporal_ranking_loss(reversed_).item(), 4)
        2.7573
        >>> round(temporal_ranking_loss(ordered, places=ordered).item(), 4)
        0.2736
    """
    if places is not None:
        require_same_shape(values, "values", places, "places")
        places, _ = check_frames(places, mask, "places")
    values, mask = check_frames(values, mask)
    pairs = later_pairs(mask)
    fall = values.unsqueeze(-1) - values.unsqueeze(-2)
    loss = softplus(fall)
    if places is not None:
        loss = loss - torch.sigmoid(places.unsqueeze(-1) - places.unsqueeze(-2)) * fall
    loss = torch.where(pairs, loss, torch.zeros_like(loss))
    count = pairs.sum((-2, -1))
    return mean_over_rows(loss.sum((-2, -1)) / count.clamp_min(1), count)
