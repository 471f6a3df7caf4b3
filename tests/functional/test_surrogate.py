"""The surrogate objective's gain by hand, against other formulas, and its interval's coverage."""

import re

import pytest
import torch

from rftf_torchrl import surrogate_gain


def test_hand_computed():
    # (r - 1) A = 0.2, 0.2, -0.3: g = 1/30. Episode sums less n_e g: 1/3 and -1/3,
    # so s.e. = sqrt(2 / 1 * 2 / 9) / 3 = 2 / 9.
    ratio = torch.tensor([1.2, 0.8, 1.3], dtype=torch.float64)
    advantage = torch.tensor([1.0, -1.0, -1.0])
    gain, low, high = surrogate_gain(ratio.log(), advantage, torch.tensor([5, 5, 3]))
    assert gain == pytest.approx(1 / 30)
    assert (low, high) == pytest.approx((1 / 30 - 1.959964 * 2 / 9, 1 / 30 + 1.959964 * 2 / 9))


def test_one_decision_an_episode_gives_the_interval_of_a_mean():
    generator = torch.Generator().manual_seed(0)
    log_ratio, advantage = 0.1 * torch.randn(2, 50, generator=generator, dtype=torch.float64)
    each = log_ratio.expm1() * advantage
    gain, _, high = surrogate_gain(log_ratio, advantage, torch.arange(50))
    assert gain == pytest.approx(float(each.mean()))
    assert high - gain == pytest.approx(1.959964 * float(each.std()) / 50**0.5)


def test_the_difference_of_two_updates_is_paired():
    generator = torch.Generator().manual_seed(2)
    first, second, advantage = 0.1 * torch.randn(3, 30, generator=generator, dtype=torch.float64)
    episode = torch.arange(10).repeat_interleave(3)
    gain, low, high = surrogate_gain(first, advantage, episode, other_log_ratio=second)
    each = (
        surrogate_gain(first, advantage, episode)[0],
        surrogate_gain(second, advantage, episode)[0],
    )
    assert gain == pytest.approx(each[0] - each[1])
    assert surrogate_gain(first, advantage, episode, other_log_ratio=first) == (0.0, 0.0, 0.0)
    # (r - r') A = (1 + (r - r') A) - 1: one ratio with a unit advantage has the same interval.
    joint = ((first.exp() - second.exp()) * advantage).log1p()
    assert surrogate_gain(joint, torch.ones_like(joint), episode) == pytest.approx(
        (gain, low, high)
    )


def test_a_policy_that_did_not_move_gains_nothing():
    assert surrogate_gain(torch.zeros(4), torch.randn(4), torch.arange(4)) == (0.0, 0.0, 0.0)


def test_the_interval_covers_zero_where_ratio_and_advantage_have_nothing_in_common():
    generator = torch.Generator().manual_seed(1)
    covered, runs = 0, 400
    episode = torch.arange(40).repeat_interleave(5)
    for _ in range(runs):
        # Both drift by episode, so that decisions of one episode are dependent.
        shared = torch.randn(2, 40, generator=generator).repeat_interleave(5, dim=1)
        log_ratio, advantage = 0.1 * (torch.randn(2, 200, generator=generator) + shared)
        _, low, high = surrogate_gain(log_ratio, advantage, episode)
        covered += low <= 0 <= high
    assert 0.91 < covered / runs < 0.98


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 1), torch.zeros(2, 1), torch.arange(2)[:, None]), "expected [N]"),
        ((torch.zeros(2), torch.zeros(3), torch.arange(2)), "advantage has shape [3]"),
        ((torch.zeros(2), torch.zeros(2), torch.arange(3)), "episode has shape [3]"),
        ((torch.tensor([0.0, torch.nan]), torch.zeros(2), torch.arange(2)), "log_ratio[1] is nan"),
        ((torch.zeros(2), torch.zeros(2), torch.zeros(2).long()), "there are 1 episodes"),
        ((torch.zeros(2), torch.zeros(2), torch.arange(2), 1.0), "confidence is 1.0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        surrogate_gain(*arguments)


def test_the_other_policy_must_have_played_the_same_decisions():
    data = torch.zeros(2), torch.zeros(2), torch.arange(2)
    with pytest.raises(ValueError, match=re.escape("other_log_ratio has shape [3]")):
        surrogate_gain(*data, other_log_ratio=torch.zeros(3))


def test_episodes_are_whole_numbers():
    with pytest.raises(TypeError, match=r"expected torch\.int64"):
        surrogate_gain(torch.zeros(2), torch.zeros(2), torch.zeros(2))
