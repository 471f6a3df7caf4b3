"""Confidence intervals of success rates."""

from __future__ import annotations

from statistics import NormalDist
from typing import TypeAlias, overload

import torch

from rftf_torchrl.functional._checks import require_confidence

Count: TypeAlias = torch.Tensor | int
Bounds: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@overload
def wilson_interval(
    successes: int, trials: int, confidence: float = 0.95
) -> tuple[float, float]: ...


@overload
def wilson_interval(
    successes: torch.Tensor, trials: torch.Tensor | int, confidence: float = 0.95
) -> Bounds: ...


def wilson_interval(
    successes: Count, trials: Count, confidence: float = 0.95
) -> Bounds | tuple[float, float]:
    r"""Computes Wilson's score interval of a success rate.

    With :math:`p = k / n` and z the two-sided normal quantile,

    .. math::
        \frac{p + \frac{z^2}{2n} \pm z \sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}}
             {1 + \frac{z^2}{n}}.

    Unlike :math:`p \pm z\,\mathrm{s.e.}` it stays in [0, 1] and is not empty at 0 or n successes.

    Source: Wilson, JASA 1927; without continuity correction.

    Args:
        successes: number k of successes, an int or an integer tensor of any shape.
        trials: number n of trials, an int or an integer tensor that broadcasts with it.
        confidence: coverage, strictly between 0 and 1.

    Returns:
        ``(low, high)``: floats for ints, float64 tensors if an argument is a tensor.

    Raises:
        ValueError: if ``trials < 1``, ``successes`` is outside [0, trials], the shapes do not
            broadcast or ``confidence`` is outside (0, 1).
        TypeError: if a count is not an integer.

    Examples:
        >>> from rftf_torchrl import wilson_interval
        >>> low, high = wilson_interval(9, 10)
        >>> round(low, 4), round(high, 4)
        (0.5958, 0.9821)
    """
    low, high = _wilson(*_counts(successes, "successes", trials, "trials"), confidence)
    return _like_inputs(low, high, successes, trials)


@overload
def newcombe_interval(
    successes_a: int, trials_a: int, successes_b: int, trials_b: int, confidence: float = 0.95
) -> tuple[float, float]: ...


@overload
def newcombe_interval(
    successes_a: torch.Tensor,
    trials_a: torch.Tensor | int,
    successes_b: torch.Tensor | int,
    trials_b: torch.Tensor | int,
    confidence: float = 0.95,
) -> Bounds: ...


def newcombe_interval(
    successes_a: Count,
    trials_a: Count,
    successes_b: Count,
    trials_b: Count,
    confidence: float = 0.95,
) -> Bounds | tuple[float, float]:
    r"""Computes Newcombe's interval of the difference of two independent success rates.

    With the Wilson intervals :math:`(l_a, u_a)` and :math:`(l_b, u_b)` of
    :math:`p_a` and :math:`p_b`,

    .. math::
        \left( p_a - p_b - \sqrt{(p_a - l_a)^2 + (u_b - p_b)^2},\;
               p_a - p_b + \sqrt{(u_a - p_a)^2 + (p_b - l_b)^2} \right).

    Source: Newcombe, Statistics in Medicine 1998, method 10 (hybrid score, no continuity
    correction).

    Args:
        successes_a: successes of a, an int or an integer tensor.
        trials_a: trials of a, an int or an integer tensor that broadcasts with it.
        successes_b: successes of b, likewise.
        trials_b: trials of b, likewise.
        confidence: coverage, strictly between 0 and 1.

    Returns:
        ``(low, high)`` of :math:`p_a - p_b`: floats for ints, float64 tensors if an argument is
        a tensor.

    Raises:
        ValueError: if a number of trials is below 1, successes are outside [0, trials], shapes
            do not broadcast or ``confidence`` is outside (0, 1).
        TypeError: if a count is not an integer.

    Examples:
        >>> from rftf_torchrl import newcombe_interval
        >>> low, high = newcombe_interval(56, 70, 48, 80)
        >>> round(low, 4), round(high, 4)
        (0.0524, 0.3339)
    """
    k_a, n_a = _counts(successes_a, "successes_a", trials_a, "trials_a")
    k_b, n_b = _counts(successes_b, "successes_b", trials_b, "trials_b")
    p_a, p_b = k_a / n_a, k_b / n_b
    low_a, high_a = _wilson(k_a, n_a, confidence)
    low_b, high_b = _wilson(k_b, n_b, confidence)
    low = p_a - p_b - torch.hypot(p_a - low_a, high_b - p_b)
    high = p_a - p_b + torch.hypot(high_a - p_a, p_b - low_b)
    return _like_inputs(low, high, successes_a, trials_a, successes_b, trials_b)


def _wilson(k: torch.Tensor, n: torch.Tensor, confidence: float) -> Bounds:
    require_confidence(confidence)
    z = NormalDist().inv_cdf(0.5 + 0.5 * confidence)
    p = k / n
    scale = 1.0 + z**2 / n
    centre = (p + z**2 / (2.0 * n)) / scale
    half = z * (p * (1.0 - p) / n + z**2 / (4.0 * n**2)).sqrt() / scale
    low = torch.where(k == 0, torch.zeros_like(p), centre - half)
    high = torch.where(k == n, torch.ones_like(p), centre + half)
    return low, high


def _counts(successes: Count, k_name: str, trials: Count, n_name: str) -> Bounds:
    k, n = _as_count(successes, k_name), _as_count(trials, n_name)
    try:
        k, n = torch.broadcast_tensors(k, n)
    except RuntimeError as error:
        raise ValueError(
            f"{k_name} has shape {list(k.shape)} and {n_name} has shape {list(n.shape)}; expected "
            "shapes that broadcast."
        ) from error
    if (n < 1).any():
        raise ValueError(f"{n_name} is {int(n.min())}; expected at least one trial.")
    bad = (k < 0) | (k > n)
    if bad.any():
        raise ValueError(
            f"{k_name} is {int(k[bad][0])} for {int(n[bad][0])} {n_name}; expected a number in "
            f"[0, {n_name}]."
        )
    return k.double(), n.double()


def _as_count(count: Count, name: str) -> torch.Tensor:
    tensor = torch.as_tensor(count)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {tensor.dtype}; expected an integer count.")
    return tensor


def _like_inputs(
    low: torch.Tensor, high: torch.Tensor, *inputs: Count
) -> Bounds | tuple[float, float]:
    if any(isinstance(value, torch.Tensor) for value in inputs):
        return low, high
    return low.item(), high.item()
