"""Forms of the reward: found by name, checked on one step, and served where they can be."""

from __future__ import annotations

import re

import pytest
import torch
from _envs import value_model
from _reward_by_hand import OPTIONS, WRITTEN, assert_written, by_hand, episodes
from own_reward import late
from torch import Tensor

from rftf_torchrl import DenseReward, StateValues, ValueReward


def flat(values: Tensor) -> Tensor:
    return values.squeeze(-1)


def nothing(values: Tensor) -> None:
    return None


def other(values: Tensor, weight: Tensor) -> Tensor:
    return values * weight


def test_the_parts_alone_are_the_whole():
    data, whole = episodes((3,)), episodes((3,))
    ValueReward(value_model(), **OPTIONS)(whole)
    StateValues(value_model())(data)
    assert ("next", "dense_reward") not in data.keys(True)
    DenseReward(**OPTIONS)(data)
    for key in WRITTEN:
        assert torch.equal(data[key], whole[key])
    assert_written(data, by_hand(data))


@pytest.mark.parametrize("form", [late, "own_reward:late"])
def test_a_form_of_ones_own(form):
    data = ValueReward(value_model(), form=form, cost=2.0)(episodes((3,)))
    lost = data["next", "truncated"] & ~data["next", "success"]
    expected = -2.0 * lost * data["temporal_value"]
    assert expected.any()
    torch.testing.assert_close(data["next", "dense_reward"], expected)


def test_data_without_values_are_refused():
    advice = "Write it first: Compose(StateValues(model), DenseReward(...)), or ValueReward."
    data = episodes()
    with pytest.raises(KeyError) as caught:
        DenseReward()(data)
    assert caught.value.args[0] == f"'temporal_value' is missing. {advice}"
    data["temporal_value"] = torch.zeros(40, 1)
    with pytest.raises(KeyError) as caught:
        DenseReward()(data)
    assert caught.value.args[0] == f"('next', 'temporal_value') is missing. {advice}"
    with pytest.raises(KeyError) as caught:
        ValueReward(value_model(), form=late, cost=1.0)(data.exclude(("next", "truncated")))
    assert caught.value.args[0] == (
        "('next', 'truncated') is missing. The form reads it. Write it, or name another entry with "
        "truncated_key=."
    )


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        (
            "diference",
            {},
            "unknown form of the reward 'diference': choose from difference, peak, give your "
            "own as 'module:Name', or offer it as an entry point in the group "
            "'rftf_torchrl.reward_forms'. Did you mean 'difference'?",
        ),
        (late, {"price": 1}, "price: the form 'late' has no such option, it has cost"),
        (flat, {"cost": 1}, "cost: the form 'flat' has no such option, it has none"),
        (
            late,
            {},
            "the form 'late' fails on one step of zeros: late() missing 1 required keyword-only "
            "argument: 'cost'",
        ),
        (
            flat,
            {},
            "the form 'flat' must return one reward a step, of values' shape (1, 1), got shape "
            "(1,).",
        ),
        (
            nothing,
            {},
            "the form 'nothing' must return one reward a step, of values' shape (1, 1), got "
            "NoneType.",
        ),
        (
            other,
            {},
            "the form 'other' reads weight: a form names columns among values, next_values, "
            "best, next_best, success, terminated, truncated, and takes its options by keyword "
            "alone (after a *).",
        ),
        (None, {"gamma": 0.9}, "options without a form of the reward: gamma."),
    ],
)
def test_broken_forms(form, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DenseReward(form, **options)
