"""The Gaussian transitions that turn a flow-matching sampler into a stochastic policy."""

from __future__ import annotations

import torch

from rftf_torchrl.functional._checks import as_compute_dtype, require_same_shape
from rftf_torchrl.functional.reduction import Reduction, reduced


def flow_sde_transition(
    x: torch.Tensor, velocity: torch.Tensor, tau: float, dt: float, level: float
) -> tuple[torch.Tensor, float]:
    r"""Computes one Euler-Maruyama step of the flow's stochastic differential equation.

    Time runs from noise to action, :math:`x_\tau = \tau a + (1 - \tau) \epsilon` with
    :math:`\tau` from 0 to 1 and velocity :math:`v = E[a - \epsilon | x_\tau]`. The score is then
    :math:`(\tau v - x) / (1 - \tau)`, and the equation

    .. math::
        dx = \Big[ v + \frac{\sigma_\tau^2}{2 (1 - \tau)} (\tau v - x) \Big] d\tau
             + \sigma_\tau dw, \qquad
        \sigma_\tau^2 = a^2 \frac{1 - \tau}{\max(\tau, \Delta\tau)}

    has the marginals of the ordinary equation :math:`dx = v\, d\tau` at any noise level a; its
    discretisation has them up to an error that vanishes with the step. Level 0 is the ordinary
    Euler step. The bound at :math:`\Delta\tau` keeps the first step finite.

    Source: Liu et al. 2025, "Flow-GRPO", arXiv 2505.05470 (from ODE to SDE), with time reversed:
    its t is :math:`1 - \tau`; Chen et al. 2025, "pi_RL", arXiv 2510.25889 (Flow-SDE).

    Args:
        x: states at time tau, floating [...].
        velocity: velocities at x, floating [...], same shape.
        tau: time of x, in [0, 1).
        dt: step, positive; tau + dt may not pass 1.
        level: noise level a, not negative.

    Returns:
        The mean of the next state, float32 or float64 [...], and its standard deviation.

    Raises:
        ValueError: if the shapes differ or a number is out of its range.
        TypeError: if a dtype is no floating one.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import flow_sde_transition
        >>> flow_sde_transition(torch.tensor([2.0]), torch.tensor([1.0]), 0.5, 0.25, level=0.0)
        (tensor([2.2500]), 0.0)
        >>> mean, std = flow_sde_transition(torch.tensor([2.0]), torch.tensor([1.0]), 0.0, 1.0, 1.0)
        >>> mean, std  # one step from noise x: x + v - x / 2
        (tensor([2.]), 1.0)
    """
    require_same_shape(x, "x", velocity, "velocity")
    if not 0 <= tau < 1 or not 0 < dt <= 1 - tau + 1e-6:
        raise ValueError(
            f"tau is {tau} and dt is {dt}; expected 0 <= tau < 1 and 0 < dt <= 1 - tau."
        )
    if not level >= 0:
        raise ValueError(f"level is {level}; expected a noise level of at least 0.")
    x, velocity = as_compute_dtype(x, "x"), as_compute_dtype(velocity, "velocity")
    spread = level**2 / max(tau, dt)
    drift = velocity + (spread / 2) * (tau * velocity - x)
    return x + drift * dt, (spread * (1 - tau) * dt) ** 0.5


def flow_matching_error(
    velocity: torch.Tensor,
    action: torch.Tensor,
    noise: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    r"""Computes the conditional flow-matching error of predicted velocities.

    .. math::
        L = E \big\| v(x_\tau, \tau) - (a - \epsilon) \big\|^2, \qquad
        x_\tau = \tau a + (1 - \tau) \epsilon

    the mean over real actions and their dimensions.

    Source: Lipman et al. 2023, "Flow Matching for Generative Modeling", arXiv 2210.02747, eq. 23;
    Black et al. 2024, "pi_0", arXiv 2410.24164, section IV.

    Args:
        velocity: predicted at :math:`x_\tau`, floating [*B, H, A].
        action: the demonstrated chunk a, same shape.
        noise: the noise :math:`\epsilon` in :math:`x_\tau`, same shape.
        mask: bool [*B, H], True at real actions; None counts all.
        reduction: ``"mean"`` or ``"sum"`` over real actions, or ``"none"``.

    Returns:
        The error, a float32 or float64 scalar; with ``"none"``, [*B, H], 0 at other actions.

    Raises:
        ValueError: if shapes differ, there is no action, or none is real.
        TypeError: if a dtype is no floating one.

    Examples:
        >>> import torch
        >>> from rftf_torchrl import flow_matching_error
        >>> action, noise = torch.full((2, 3, 4), 2.0), torch.ones(2, 3, 4)
        >>> flow_matching_error(torch.zeros(2, 3, 4), action, noise)
        tensor(1.)
    """
    require_same_shape(velocity, "velocity", action, "action")
    require_same_shape(velocity, "velocity", noise, "noise")
    velocity, action = as_compute_dtype(velocity, "velocity"), as_compute_dtype(action, "action")
    if not velocity.numel():
        raise ValueError(
            f"velocity has shape {list(velocity.shape)}; expected one action at least."
        )
    error = velocity - (action - as_compute_dtype(noise, "noise"))
    if mask is not None:
        require_same_shape(error[..., 0], "action without its last dimension", mask, "mask")
        if not torch.compiler.is_compiling() and not mask.any():
            raise ValueError("mask has no True entry; expected at least one real action.")
        error = torch.where(mask.unsqueeze(-1), error, torch.zeros_like(error))
    return reduced(error.square().mean(-1), mask, reduction)
