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
:func:`peak`            may change          its largest value above that of the start
======================= =================== ========================================================

With :func:`peak`, and with every form that reads ``best`` or ``next_best``, a failure keeps what it
reached. A success is paid more as long as the weight of the dense reward is below the weight of
success, which is checked. Such a form needs values whose 0 and 1 mean start and goal (a calibrated
model), and an end of time that is an end (``ppo.bootstrap_timeouts=false``), unless what it pays
fades (``reward.fade``).

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
        "difference": "rftf_torchrl.rewards.forms:difference",
        "peak": "rftf_torchrl.rewards.forms:peak",
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
