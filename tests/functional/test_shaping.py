"""potential_shaping: the telescoping identity, terminal handling and broken inputs."""

import re

import pytest
import torch

from rftf_torchrl import potential_shaping


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("ends_terminated", [True, False])
@pytest.mark.parametrize("terminal", ["zero", "keep"])
def test_discounted_sum_telescopes(gamma, ends_terminated, terminal):
    steps = 12
    potential = torch.randn(steps + 1, dtype=torch.float64)
    terminated = torch.zeros(steps, dtype=torch.bool)
    terminated[-1] = ends_terminated
    reward = potential_shaping(potential[:-1], potential[1:], terminated, gamma, terminal)
    discounted = (gamma ** torch.arange(steps, dtype=torch.float64) * reward).sum()
    last = 0.0 if ends_terminated and terminal == "zero" else potential[-1]
    torch.testing.assert_close(discounted, gamma**steps * last - potential[0])


def test_hand_computed():
    value = torch.tensor([[0.0], [0.5], [0.75]])
    next_value = torch.tensor([[0.5], [0.75], [1.0]])
    terminated = torch.tensor([[False], [False], [True]])
    zero = potential_shaping(value, next_value, terminated, 0.5)
    keep = potential_shaping(value, next_value, terminated, 0.5, terminal="keep")
    assert zero.tolist() == [[0.25], [-0.125], [-0.75]]
    assert keep.tolist() == [[0.25], [-0.125], [-0.25]]


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_keeping_is_a_bonus_on_the_step_that_terminates(gamma):
    value, next_value = torch.randn(2, 20, dtype=torch.float64)
    terminated = torch.arange(20) % 5 == 4
    zero, keep = (
        potential_shaping(value, next_value, terminated, gamma, terminal)
        for terminal in ("zero", "keep")
    )
    torch.testing.assert_close(keep, zero + gamma * next_value * terminated)


def test_terminal_potential_is_not_read_when_zero():
    value, next_value = torch.tensor([1.0]), torch.tensor([float("nan")])
    assert potential_shaping(value, next_value, torch.tensor([True]), 0.9).item() == -1.0


def test_low_precision_is_computed_in_float32():
    value = torch.tensor([0.5], dtype=torch.bfloat16)
    next_value = torch.tensor([0.50390625], dtype=torch.bfloat16)
    reward = potential_shaping(value, next_value, torch.tensor([False]), 0.999)
    assert reward.dtype == torch.float32
    assert reward.item() == pytest.approx(0.999 * 0.50390625 - 0.5, rel=1e-4)


VALUE, FLAG = torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.bool)
BROKEN = [
    (
        ValueError,
        (VALUE, torch.zeros(3), FLAG, 0.9),
        "next_value has shape [3] and value has shape [3, 1]; expected the same shape.",
    ),
    (
        ValueError,
        (VALUE, VALUE, FLAG[:, 0], 0.9),
        "terminated has shape [3] and value has shape [3, 1]; expected the same shape.",
    ),
    (
        TypeError,
        (VALUE, VALUE, VALUE, 0.9),
        "terminated has dtype torch.float32; expected torch.bool. Convert it with "
        "terminated.bool().",
    ),
    (
        TypeError,
        (VALUE.long(), VALUE.long(), FLAG, 0.9),
        "value has dtype torch.int64; expected a floating dtype. Convert it with value.float().",
    ),
    (ValueError, (VALUE, VALUE, FLAG, 1.5), "gamma is 1.5; expected a discount in [0, 1]."),
    (
        ValueError,
        (VALUE, VALUE, FLAG, 0.9, "drop"),
        "terminal is 'drop'; expected 'zero' or 'keep'.",
    ),
]


@pytest.mark.parametrize(("error", "arguments", "message"), BROKEN)
def test_broken_inputs(error, arguments, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        potential_shaping(*arguments)
