"""Aggregates of scores over runs and tasks, and when a learning curve reaches a level."""

from __future__ import annotations

import math

import torch

from rftf_torchrl.functional._checks import as_compute_dtype, require_finite, require_same_shape


def interquartile_mean(scores: torch.Tensor) -> torch.Tensor:
    r"""Computes the mean of the middle half of the scores.

    .. math::
        \mathrm{IQM} = \frac{1}{n - 2k} \sum_{i = k + 1}^{n - k} x_{(i)}, \qquad
        k = \lfloor n / 4 \rfloor

    It ignores outliers, which a mean does not, and uses more of the data than a median. With fewer
    than four scores it is the mean. SciPy's ``trim_mean(scores, 0.25)`` is the same.

    Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
    NeurIPS 2021, arXiv 2108.13264, section 4.3.

    Args:
        scores: floating, [..., n].

    Returns:
        float32 or float64, [...].

    Raises:
        ValueError: if there is no score or one is not finite.
        TypeError: if the dtype is not floating.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import interquartile_mean
        >>> interquartile_mean(torch.tensor([0.0, 0.5, 0.7, 9.0]))
        tensor(0.6000)
    """
    scores = _finite_scores(scores, "scores")
    trimmed = scores.shape[-1] // 4
    middle = scores.sort(-1).values[..., trimmed : scores.shape[-1] - trimmed]
    return middle.mean(-1)


def probability_of_improvement(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    r"""Computes how likely a run of X scores above a run of Y.

    .. math::
        P(X > Y) = \frac{1}{n m} \sum_{i, j} \left( [x_i > y_j] + \tfrac{1}{2} [x_i = y_j] \right)

    averaged over tasks. 0.5 says that neither is better.

    Source: Agarwal et al., NeurIPS 2021, arXiv 2108.13264, section 4.3; the Mann-Whitney statistic.

    Args:
        x: scores of the first method's runs, floating, [..., n, tasks].
        y: scores of the second method's runs, floating, [..., m, tasks].

    Returns:
        float32 or float64 in [0, 1], [...].

    Raises:
        ValueError: if the numbers of tasks differ, there is no score or one is not finite.
        TypeError: if a dtype is not floating.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import probability_of_improvement
        >>> x, y = torch.tensor([[0.5], [0.9]]), torch.tensor([[0.4], [0.5]])
        >>> probability_of_improvement(x, y)
        tensor(0.8750)
    """
    x, y = _finite_scores(x, "x"), _finite_scores(y, "y")
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x has shape {list(x.shape)} and y has shape {list(y.shape)}; expected [..., runs, "
            "tasks] with the same tasks."
        )
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    return (0.5 * (difference.sign() + 1.0)).mean((-3, -2, -1))


def steps_to_level(steps: torch.Tensor, success: torch.Tensor, level: float) -> float:
    """Computes after how many steps a learning curve first reaches a level.

    Between two points the curve is a straight line.

    Args:
        steps: numbers of steps, increasing, [n].
        success: the curve at these steps, floating, [n].
        level: the level.

    Returns:
        The steps; infinity if the curve ends below the level without reaching it (it is censored
        at its last point).

    Raises:
        ValueError: if the shapes differ, there is no point, an entry is not finite, or the steps do
            not increase.
        TypeError: if ``success`` is not floating.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import steps_to_level
        >>> steps, success = torch.tensor([0, 100, 200]), torch.tensor([0.25, 0.5, 0.75])
        >>> steps_to_level(steps, success, 0.625), steps_to_level(steps, success, 0.9)
        (150.0, inf)
    """
    require_same_shape(steps, "steps", success, "success")
    success = _finite_scores(success, "success").double()
    require_finite(steps, "steps")
    if success.ndim != 1 or (steps.diff() <= 0).any():
        raise ValueError(
            f"steps has shape {list(steps.shape)}; expected [n] with every entry above the one "
            "before."
        )
    reached = (success >= level - 1e-6).nonzero()
    if not len(reached):
        return math.inf
    first = int(reached[0])
    if first == 0:
        return float(steps[0])
    low, high = success[first - 1].item(), success[first].item()
    share = min((level - low) / (high - low), 1.0)
    return float(steps[first - 1]) + share * float(steps[first] - steps[first - 1])


def _finite_scores(scores: torch.Tensor, name: str) -> torch.Tensor:
    scores = as_compute_dtype(scores, name)
    if scores.ndim == 0 or not scores.numel():
        raise ValueError(f"{name} has shape {list(scores.shape)}; expected at least one score.")
    require_finite(scores, name)
    return scores
