"""ValueReward names what is wrong with values, data, environments and arguments."""

from __future__ import annotations

import re

import pytest
import torch
from _envs import ChunkWalkEnv, value_model, walk_policy
from _reward_by_hand import episodes
from tensordict.nn import TensorDictModule
from torchrl.envs import ToyVLAEnv, TransformedEnv

from rftf_torchrl import ValueReward


def nan_model() -> TensorDictModule:
    def value(state):
        return torch.where(state[:, 1:] == 2, float("nan"), state[:, :1])

    return TensorDictModule(value, in_keys=[("observation", "state")], out_keys=["temporal_value"])


def test_a_non_finite_value_stops_with_its_key_and_index():
    data = episodes()
    index = ((data["observation", "state"][:, 1] == 2).nonzero()[0].item(), 0)
    with pytest.raises(FloatingPointError, match=re.escape(f"the first at index {index}: nan")):
        ValueReward(nan_model())(data)
    env = TransformedEnv(ChunkWalkEnv(goal=100.0), ValueReward(nan_model()))
    message = (
        "('next', 'temporal_value') has 1 non-finite of 1 elements, the first at index (0,): nan"
    )
    with pytest.raises(FloatingPointError, match=re.escape(message)):
        env.rollout(4, walk_policy())


def broken_data():
    data = episodes()
    return {
        "no next": (
            KeyError,
            data.exclude("next"),
            "'next' is missing: StateValues needs transitions, with success, terminated and the "
            "next state under 'next'.",
        ),
        "no success": (
            KeyError,
            data.exclude(("next", "success")),
            "('next', 'success') is missing. Have the environment write it, or name another entry "
            "with success_key= (that of torchrl's SuccessReward). Collectors with compact_obs=True "
            "leave out what the next state shows: build yours with compact_obs=False.",
        ),
        "no terminated": (
            KeyError,
            data.exclude(("next", "terminated")),
            "('next', 'terminated') is missing. Without it every done would count as a "
            "termination and truncated episodes would lose V(s_{t+1}). Write it, or name another "
            "entry with terminated_key=.",
        ),
        "flat success": (
            ValueError,
            data.clone().set(("next", "success"), data["next", "success"].squeeze(-1)),
            "('next', 'success') must have shape (40, 1), got (40,).",
        ),
    }


@pytest.mark.parametrize("name", list(broken_data()))
def test_broken_data(name):
    error, data, message = broken_data()[name]
    with pytest.raises(error) as caught:
        ValueReward(value_model())(data)
    assert caught.value.args[0] == message


def test_broken_environment():
    env = TransformedEnv(ToyVLAEnv(), ValueReward(value_model()))
    message = (
        "('instruction', 'tokens') is missing from what the environment returns, but the value "
        "model reads it. For instruction tokens, append InstructionTokens first."
    )
    with pytest.raises(KeyError) as caught:
        env.reset()
    assert caught.value.args[0] == message
    with pytest.raises(KeyError, match="'success'"):
        TransformedEnv(ToyVLAEnv(), ValueReward(None)).rollout(2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"gamma": 1.5},
            "the form 'difference' fails on one step of zeros: gamma is 1.5; expected a discount "
            "in [0, 1].",
        ),
        ({"value_range": (1.0, 0.0)}, "value_range must be (low, high) with low < high"),
        (
            {"terminal": "drop"},
            "the form 'difference' fails on one step of zeros: terminal is 'drop'; expected 'zero' "
            "or 'keep'.",
        ),
        (
            {"gama": 0.9},
            "gama: the form 'difference' has no such option, it has gamma, terminal",
        ),
        ({"chunk_size": 0}, "chunk_size must be at least 1 state per forward, got 0."),
        (
            {"value_key": "score"},
            "value_key 'score' is not among the value model's out_keys ['temporal_value'].",
        ),
    ],
)
def test_broken_arguments(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ValueReward(value_model(), **kwargs)
