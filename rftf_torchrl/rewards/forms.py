"""Forms of the dense reward: what a value model's values pay, as pure functions.

A form names the columns that it reads, and takes options by keyword. It returns the dense reward of
each step, float32, of the same shape as ``values``. The columns are

- ``values`` and ``next_values``: float32 ``[*B, 1]``, V(s_t) and V(s_{t+1});
- ``best`` and ``next_best``: float32 ``[*B, 1]``, the largest value of the episode's states up to
  s_t and up to s_{t+1};
- ``success``, ``terminated`` and ``truncated``: bool ``[*B, 1]``, of the end of the step.

======================= =================== ========================================================
form                    optimal policies    what a failure earns in all
======================= =================== ========================================================
:func:`difference`      kept                nothing, where the critic goes on at time-outs
:func:`goal_zero`       kept                nothing, where the critic goes on at time-outs
:func:`peak`            may change          its largest value above that of the start
:func:`milestones`      may change          a share for each threshold that it passed
:func:`graded`          may change          its largest value, at its end
======================= =================== ========================================================

The last three let a failure keep what it reached. A success is paid more as long as the weight of
the dense reward is below the weight of success, which is checked. They need values whose 0 and 1
mean start and goal (a calibrated model), and an end of time that is an end
(``ppo.bootstrap_timeouts=false``), unless what they pay fades (``reward.fade``).

A new form is one function, and one row in :data:`FORMS`; a form of your own needs no row:
``"module:function"``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rftf_torchrl.functional.shaping import potential_shaping
from rftf_torchrl.registry import Registry

VALUES = ("values", "next_values", "best", "next_best")
COLUMNS = (*VALUES, "success", "terminated", "truncated")
FORMS = Registry(
    "form of the reward",
    "rftf_torchrl.reward_forms",
    {
        name: f"rftf_torchrl.rewards.forms:{name}"
        for name in ("difference", "goal_zero", "peak", "milestones", "graded")
    },
    ("__call__",),
)


def difference(
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    *,
    gamma: float = 0.99,
    terminal: Literal["zero", "keep"] = "zero",
) -> Tensor:
    """The difference of the values, gamma V(s_{t+1}) - V(s_t).

    Source: Ng, Harada, Russell, "Policy invariance under reward transformations", ICML 1999; see
    :func:`potential_shaping`.

    Args:
        values: float [*B, 1].
        next_values: float [*B, 1].
        terminated: bool [*B, 1].
        gamma: discount of one decision; that of the advantage estimate.
        terminal: V(s_{t+1}) at terminations: ``"zero"`` (leaves the optimal policy unchanged) or
            ``"keep"`` (does not). At truncations it is always kept.

    Returns:
        float32 [*B, 1].

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> values, next_values = torch.tensor([[0.0]]), torch.tensor([[0.5]])
        >>> difference(values, next_values, torch.tensor([[False]]), gamma=0.5)
        tensor([[0.2500]])
    """
    return potential_shaping(values, next_values, terminated, gamma, terminal)


def goal_zero(
    values: Tensor, next_values: Tensor, terminated: Tensor, *, gamma: float = 0.99
) -> Tensor:
    """The difference of V - 1, a potential that is zero at the goal by itself.

    With V itself the last step of a success pays 1 - V(s_t) and takes V(s_t) back. So a near miss
    looks as good as a success until the critic has learned the difference. V - 1 is minus the way
    that is left. Optimal policies stay what they were, as with every potential.

    Source: Ng, Harada, Russell, "Policy invariance under reward transformations", ICML 1999.

    Args:
        values: float [*B, 1], 1 at the goal.
        next_values: float [*B, 1].
        terminated: bool [*B, 1].
        gamma: discount of one decision; that of the advantage estimate.

    Returns:
        float32 [*B, 1].

    Raises:
        ValueError: if the discount is out of its range.

    Example:
        >>> values, next_values = torch.tensor([[0.75]]), torch.tensor([[1.0]])
        >>> goal_zero(values, next_values, torch.tensor([[True]]))
        tensor([[0.2500]])
    """
    return potential_shaping(values - 1, next_values - 1, terminated, gamma)


def peak(best: Tensor, next_best: Tensor) -> Tensor:
    """Each new maximum of V, clipped to [0, 1].

    An episode earns the largest value that it reached above that of its start. Nothing is taken
    back, and nothing is gained by going back and forth.

    Args:
        best: float [*B, 1].
        next_best: float [*B, 1].

    Returns:
        float32 [*B, 1], in [0, 1].

    Example:
        >>> peak(torch.tensor([[0.25]]), torch.tensor([[0.75]]))
        tensor([[0.5000]])
    """
    return next_best.clamp(0, 1) - best.clamp(0, 1)


def milestones(
    best: Tensor,
    next_best: Tensor,
    *,
    thresholds: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
) -> Tensor:
    """An equal share of 1 for each threshold that V passes for the first time.

    Small changes of V, which are mostly its error, pay nothing. Each threshold pays once.

    Args:
        best: float [*B, 1].
        next_best: float [*B, 1].
        thresholds: rising values in (0, 1].

    Returns:
        float32 [*B, 1], in [0, 1].

    Raises:
        ValueError: if thresholds do not rise, or lie outside (0, 1].

    Example:
        >>> milestones(torch.tensor([[0.3]]), torch.tensor([[0.7]]))
        tensor([[0.5000]])
    """
    rising = all(low < high for low, high in zip([0.0, *thresholds], thresholds, strict=False))
    if not thresholds or not rising or thresholds[-1] > 1:
        raise ValueError(
            f"thresholds are {list(thresholds)}; expected rising values above 0, the last of them "
            "1 at most, as [0.25, 0.5, 0.75]."
        )
    line = torch.tensor(thresholds, dtype=torch.float32, device=best.device)
    passed = (next_best >= line).sum(-1, keepdim=True) - (best >= line).sum(-1, keepdim=True)
    return passed.float() / len(thresholds)


def graded(next_best: Tensor, success: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """The largest V of a failure, clipped to [0, 1], at its end; nothing for a success.

    An outcome with grades between failure and success.

    Args:
        next_best: float [*B, 1].
        success: bool [*B, 1].
        terminated: bool [*B, 1].
        truncated: bool [*B, 1].

    Returns:
        float32 [*B, 1], in [0, 1].

    Example:
        >>> no, yes = torch.tensor([[False]]), torch.tensor([[True]])
        >>> graded(torch.tensor([[0.75]]), success=no, terminated=no, truncated=yes)
        tensor([[0.7500]])
    """
    failed = (terminated | truncated) & ~success
    return next_best.clamp(0, 1) * failed


def keeps_failures(columns: Sequence[str]) -> bool:
    """Whether a form that reads these columns lets a failure keep what it reached.

    Args:
        columns: see :func:`reward_form`.

    Returns:
        True where it reads ``best`` or ``next_best``.

    Example:
        >>> keeps_failures(reward_form("peak", {})[1])
        True
    """
    return not {"best", "next_best"}.isdisjoint(columns)


def reward_form(
    form: str | Callable[..., Tensor], options: Mapping[str, Any], prefix: str = ""
) -> tuple[Callable[..., Tensor], tuple[str, ...]]:
    """Find a form, give it its options and try it on one step.

    Args:
        form: a name, ``"module:function"`` or the function.
        options: its keyword arguments.
        prefix: what stands before an option's name in errors, as ``"reward.options."``.

    Returns:
        The form with its options, and the columns that it reads.

    Raises:
        ValueError: where there is no such form, it reads something else, it does not have an
            option or refuses it, or it returns another shape.

    Example:
        >>> reward_form("difference", {"gamma": 0.9})[1]
        ('values', 'next_values', 'terminated')
    """
    function = FORMS.find(form) if isinstance(form, str) else form
    name = form if isinstance(form, str) else getattr(form, "__name__", repr(form))
    columns, known = _arguments(function, name)
    problems = [
        f"{prefix}{option}: the form {name!r} has no such option, it has {_list(known)}"
        for option in options
        if option not in known
    ]
    if problems:
        raise ValueError("; ".join(problems))
    bound = partial(function, **options)
    step = torch.zeros(1, 1)
    trial = {column: step if column in VALUES else step.bool() for column in COLUMNS}
    try:
        dense = bound(**{column: trial[column] for column in columns})
    except Exception as error:
        raise ValueError(f"the form {name!r} fails on one step of zeros: {error}") from error
    if not isinstance(dense, Tensor) or dense.shape != step.shape:
        got = f"shape {tuple(dense.shape)}" if isinstance(dense, Tensor) else type(dense).__name__
        raise ValueError(
            f"the form {name!r} must return one reward a step, of values' shape (1, 1), got {got}."
        )
    return bound, columns


def gamma_option(form: str, gamma: float) -> dict[str, Any]:
    """The run's discount, for a form that has one.

    Args:
        form: see :func:`reward_form`.
        gamma: the discount.

    Returns:
        ``{"gamma": gamma}`` where the form has such an option, else nothing.

    Example:
        >>> gamma_option("difference", 0.97)
        {'gamma': 0.97}
    """
    return {"gamma": gamma} if "gamma" in _arguments(FORMS.find(form), form)[1] else {}


def _arguments(function: Callable[..., Tensor], name: str) -> tuple[tuple[str, ...], list[str]]:
    """The columns and the options of a form."""
    parameters = inspect.signature(function).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    columns = tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY)
    other = [column for column in columns if column not in COLUMNS]
    if other or not columns:
        raise ValueError(
            f"the form {name!r} reads {_list(other)}: a form names columns among "
            f"{', '.join(COLUMNS)}, and takes its options by keyword alone (after a *)."
        )
    return columns, known


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
