"""The dense reward that a potential gives."""

from __future__ import annotations

from typing import Literal

import torch

from rftf_torchrl.functional._checks import as_compute_dtype, require_bool, require_same_shape


def potential_shaping(
    value: torch.Tensor,
    next_value: torch.Tensor,
    terminated: torch.Tensor,
    gamma: float,
    terminal: Literal["zero", "keep"] = "zero",
) -> torch.Tensor:
    r"""Computes the potential-based shaping reward of each transition.

    .. math::
        F_t = \gamma V'_{t+1} - V_t, \qquad
        V'_{t+1} = \begin{cases}
            0 & \text{if terminated and terminal is ``zero''} \\
            V_{t+1} & \text{otherwise.}
        \end{cases}

    Over a trajectory of T transitions the discounted rewards telescope to
    :math:`\gamma^T V'_T - V_0`. With ``"zero"`` that sum does not depend on what the policy did
    in a trajectory that terminates, so optimal policies stay optimal. With ``"keep"`` a
    terminated trajectory keeps the bonus :math:`\gamma^T V_T`, which can change them. ``"keep"``
    is ``"zero"`` with :math:`\gamma V_{t+1}` on top of the terminating transition's reward. Where
    only success terminates, that is a success worth more. A truncation is not a termination:
    pass ``terminated``, not ``done``.

    Source: Ng, Harada, Russell, "Policy invariance under reward transformations", ICML 1999,
    theorem 1.

    Args:
        value: potentials V of the states, floating, any shape.
        next_value: potentials of the next states, same shape.
        terminated: bool, same shape, ``True`` where the next state is terminal.
        gamma: discount of one decision, in [0, 1].
        terminal: potential of a terminal state: ``"zero"`` or ``"keep"`` (the model's own).

    Returns:
        The shaping rewards, same shape, in float32 (float64 if an input is float64).

    Raises:
        ValueError: if shapes differ, ``gamma`` is outside [0, 1] or ``terminal`` is unknown.
        TypeError: if a dtype is wrong.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import potential_shaping
        >>> value, next_value = torch.tensor([0.0, 0.5]), torch.tensor([0.5, 1.0])
        >>> terminated = torch.tensor([False, True])
        >>> potential_shaping(value, next_value, terminated, gamma=0.5)
        tensor([ 0.2500, -0.5000])
        >>> potential_shaping(value, next_value, terminated, gamma=0.5, terminal="keep")
        tensor([0.2500, 0.0000])
    """
    require_same_shape(value, "value", next_value, "next_value")
    require_same_shape(value, "value", terminated, "terminated")
    require_bool(terminated, "terminated")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma is {gamma}; expected a discount in [0, 1].")
    if terminal not in ("zero", "keep"):
        raise ValueError(f"terminal is {terminal!r}; expected 'zero' or 'keep'.")
    value = as_compute_dtype(value, "value")
    next_value = as_compute_dtype(next_value, "next_value")
    if terminal == "zero":
        next_value = torch.where(terminated, torch.zeros_like(next_value), next_value)
    return gamma * next_value - value
