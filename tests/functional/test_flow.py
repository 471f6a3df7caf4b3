import re

import pytest
import torch

from rftf_torchrl import flow_matching_error, flow_sde_transition


def gaussian_velocity(x, tau, mean, std):
    """E[a - noise | x_tau] for a ~ N(mean, std^2): the linear regression of a - noise on x."""
    variance = tau**2 * std**2 + (1 - tau) ** 2
    slope = (tau * std**2 - (1 - tau)) / variance
    return mean + slope * (x - tau * mean)


def end_moments(steps, level, mean, std):
    """Mean and variance after the chain, exactly: every step is linear with Gaussian noise."""
    centre, variance = 0.0, 1.0
    for step in range(steps):
        tau, dt = step / steps, 1 / steps
        ends = []
        for x in (0.0, 1.0):
            x = torch.tensor(x, dtype=torch.float64)
            loc, noise = flow_sde_transition(
                x, gaussian_velocity(x, tau, mean, std), tau, dt, level
            )
            ends.append(float(loc))
        slope = ends[1] - ends[0]
        centre, variance = ends[0] + slope * centre, slope**2 * variance + noise**2
    return centre, variance


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
def test_every_noise_level_keeps_the_marginal_of_the_ordinary_flow(level):
    for steps, bound in ((100, 8e-3), (400, 2e-3), (1600, 1e-3)):
        centre, variance = end_moments(steps, level, mean=0.7, std=0.5)
        assert centre == pytest.approx(0.7, abs=1e-9)
        assert variance == pytest.approx(0.25, abs=bound)


def test_more_noise_than_the_equation_allows_would_be_seen():
    """Without the drift correction, the noise widens the marginal."""
    torch.manual_seed(0)
    x = torch.randn(20_000, dtype=torch.float64)
    for step in range(50):
        tau, dt = step / 50, 1 / 50
        velocity = gaussian_velocity(x, tau, 0.7, 0.5)
        _, noise = flow_sde_transition(x, velocity, tau, dt, 0.7)
        x = x + velocity * dt + noise * torch.randn_like(x)
    assert x.var() > 1.3 * 0.25


def test_level_zero_is_the_euler_step():
    x, velocity = torch.randn(3, 2), torch.randn(3, 2)
    loc, scale = flow_sde_transition(x, velocity, 0.25, 0.25, 0.0)
    assert torch.equal(loc, x + 0.25 * velocity)
    assert scale == 0


def test_by_hand():
    # sigma^2 = 0.25 * 0.5 / 0.5 = 0.25; drift = 1 + 0.25 / (2 * 0.5) * (0.5 * 1 - 2) = 0.625
    loc, scale = flow_sde_transition(torch.tensor(2.0), torch.tensor(1.0), 0.5, 0.25, 0.5)
    assert float(loc) == pytest.approx(2 + 0.625 * 0.25)
    assert scale == pytest.approx((0.25 * 0.25) ** 0.5)


def test_flow_matching_error_counts_real_actions_only():
    action, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    velocity = action - noise
    velocity[0, 2] += 3.0
    velocity[1, 0] += 1.0
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert float(flow_matching_error(velocity, action, noise, mask)) == pytest.approx(10 / 6)
    mask[0, 2] = False
    velocity[0, 2] = float("nan")
    assert float(flow_matching_error(velocity, action, noise, mask)) == pytest.approx(1 / 5)


X = torch.zeros(2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: flow_sde_transition(X, torch.zeros(3), 0.0, 0.5, 1.0),
            "velocity has shape [3] and x has shape [2]; expected the same shape.",
        ),
        (
            lambda: flow_sde_transition(X, X, 0.75, 0.5, 1.0),
            "tau is 0.75 and dt is 0.5; expected 0 <= tau < 1 and 0 < dt <= 1 - tau.",
        ),
        (
            lambda: flow_sde_transition(X, X, 0.0, 0.5, -1.0),
            "level is -1.0; expected a noise level of at least 0.",
        ),
        (
            lambda: flow_matching_error(
                *[torch.zeros(1, 2, 3)] * 3, torch.zeros(1, 2, dtype=torch.bool)
            ),
            "mask has no True entry; expected at least one real action.",
        ),
        (
            lambda: flow_matching_error(*[torch.zeros(0, 2, 3)] * 3),
            "velocity has shape [0, 2, 3]; expected one action at least.",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()
