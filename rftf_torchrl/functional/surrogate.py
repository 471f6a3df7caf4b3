"""What a policy update gains by the surrogate objective, on any episodes."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch

from rftf_torchrl.functional._checks import (
    as_compute_dtype,
    require_confidence,
    require_finite,
    require_same_shape,
)


def surrogate_gain(
    log_ratio: torch.Tensor,
    advantage: torch.Tensor,
    episode: torch.Tensor,
    confidence: float = 0.95,
    *,
    other_log_ratio: torch.Tensor | None = None,
) -> tuple[float, float, float]:
    r"""Computes how much better the updated policy's decisions are, with an interval.

    .. math::
        g = \frac{1}{N} \sum_{t=1}^{N} (r_t - 1) A_t, \qquad
        r_t = \frac{\pi_\mathrm{new}(a_t \mid s_t)}{\pi_\mathrm{old}(a_t \mid s_t)}

    It is the change of PPO's objective without the clipping. On the episodes of the update it is
    always positive, even if the update learned only chance. On other episodes of the same old
    policy it is positive only if the update learned something that holds for them, too. The
    interval is normal and takes the decisions of an episode for dependent: with episode e's
    :math:`n_e` decisions and E episodes,

    .. math::
        \mathrm{s.e.} = \frac{1}{N} \sqrt{\frac{E}{E - 1} \sum_e
        \Big( \sum_{t \in e} (r_t - 1) A_t - n_e g \Big)^2 }.

    Source: Kakade and Langford, ICML 2002, equation 4.1; Schulman et al. 2015, arXiv 1502.05477,
    equation 3.

    Args:
        log_ratio: log-probability of the actions under the new policy minus that under the old one
            which chose them, floating, [N].
        advantage: of these actions under the old policy, floating, [N].
        episode: which episode each belongs to, int64, [N].
        confidence: coverage, strictly between 0 and 1.
        other_log_ratio: the same of another new policy, floating, [N]; its gain is taken off, and
            the interval is that of the paired difference.

    Returns:
        ``(gain, low, high)`` in the unit of the advantage.

    Raises:
        ValueError: if the shapes differ or are not [N], an entry is not finite, there are fewer
            than two episodes, or ``confidence`` is outside (0, 1).
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import surrogate_gain
        >>> ratio = torch.tensor([1.2, 1.0, 0.9, 1.1])
        >>> advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
        >>> episode = torch.tensor([0, 0, 1, 1])
        >>> gain, low, high = surrogate_gain(ratio.log(), advantage, episode)
        >>> round(gain, 3), round(low, 3), round(high, 3)
        (0.05, -0.048, 0.148)
    """
    if other_log_ratio is None:
        other_log_ratio = torch.zeros_like(log_ratio)
    log_ratio = as_compute_dtype(log_ratio, "log_ratio").double()
    other_log_ratio = as_compute_dtype(other_log_ratio, "other_log_ratio").double()
    advantage = as_compute_dtype(advantage, "advantage").double()
    if log_ratio.ndim != 1:
        raise ValueError(f"log_ratio has shape {list(log_ratio.shape)}; expected [N].")
    require_same_shape(log_ratio, "log_ratio", advantage, "advantage")
    require_same_shape(log_ratio, "log_ratio", episode, "episode")
    require_same_shape(log_ratio, "log_ratio", other_log_ratio, "other_log_ratio")
    if episode.dtype != torch.int64:
        raise TypeError(f"episode has dtype {episode.dtype}; expected torch.int64.")
    require_finite(log_ratio, "log_ratio")
    require_finite(other_log_ratio, "other_log_ratio")
    require_finite(advantage, "advantage")
    require_confidence(confidence)
    names, member = episode.unique(return_inverse=True)
    episodes, decisions = len(names), len(log_ratio)
    if episodes < 2:
        raise ValueError(f"there are {episodes} episodes; an interval needs at least two.")
    each = (log_ratio.exp() - other_log_ratio.exp()) * advantage
    gain = float(each.mean())
    spread = torch.zeros(episodes, dtype=each.dtype, device=each.device)
    spread.index_add_(0, member, each - gain)
    error = math.sqrt(episodes / (episodes - 1) * float(spread.square().sum())) / decisions
    margin = NormalDist().inv_cdf(0.5 + 0.5 * confidence) * error
    return gain, gain - margin, gain + margin
