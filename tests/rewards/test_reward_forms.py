"""Forms of the reward: found by name, checked on one step, and served where they can be."""

from __future__ import annotations

import re

import pytest
import torch
from _envs import ChunkWalkEnv, value_model, walk_policy
from _reward_by_hand import OPTIONS, WRITTEN, assert_written, by_hand, episodes
from tensordict import TensorDict
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import TransformedEnv
from torchrl.envs.transforms import Compose

from rftf_torchrl import DenseReward, StateValues, ValueReward


def late(values: Tensor, truncated: Tensor, success: Tensor, *, cost: float) -> Tensor:
    return -cost * (truncated & ~success) * values


def peak(next_values: Tensor, trajectory: Tensor, *, scale: float = 1.0) -> Tensor:
    """What each step adds to the largest value so far of its trajectory."""
    _, lengths = trajectory.unique_consecutive(return_counts=True)
    best = [piece.cummax(0).values for piece in next_values.clamp(min=0).split(lengths.tolist())]
    return scale * torch.cat([top.diff(dim=0, prepend=top.new_zeros(1, 1)) for top in best])


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


@pytest.mark.parametrize("form", [late, "test_reward_forms:late"])
def test_a_form_of_ones_own(form):
    data = ValueReward(value_model(), form=form, cost=2.0)(episodes((3,)))
    lost = data["next", "truncated"] & ~data["next", "success"]
    expected = -2.0 * lost * data["temporal_value"]
    assert expected.any()
    torch.testing.assert_close(data["next", "dense_reward"], expected)


def collected() -> TensorDict:
    torch.manual_seed(0)
    collector = Collector(
        ChunkWalkEnv(),
        walk_policy(),
        frames_per_batch=20,
        total_frames=20,
        trajs_per_batch=5,
        traj_format="cat",
        postproc=ValueReward(value_model(), form=peak, scale=0.5),
        auto_register_policy_transforms=False,
    )
    data = next(iter(collector))
    collector.shutdown()
    return data


def test_a_form_of_whole_trajectories():
    data = collected()
    ids = data["collector", "traj_ids"]
    assert len(ids.unique()) == 5
    for number in ids.unique():
        own = data[ids == number]["next"]
        total = 0.5 * own["temporal_value"].clamp(min=0).max()
        torch.testing.assert_close(own["dense_reward"].sum(), total)


def test_whole_trajectories_are_refused_step_by_step():
    data = collected()
    message = (
        "the steps of a trajectory are not one after another in ('collector', 'traj_ids'), and "
        "this form of the reward reads whole trajectories: apply it to a collector's batch "
        "(traj_format='cat'), before the steps are shuffled."
    )
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(40), batch_size=16)
    buffer.append_transform(DenseReward(peak))
    buffer.extend(data)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        buffer.sample()
    missing = (
        "('collector', 'traj_ids') is missing, and this form of the reward reads whole "
        "trajectories. Collectors write it (trajs_per_batch)."
    )
    with pytest.raises(KeyError) as caught:
        DenseReward(peak)(data.exclude(("collector", "traj_ids")))
    assert caught.value.args[0] == missing
    env = TransformedEnv(ChunkWalkEnv(), Compose(ValueReward(value_model(), form=peak)))
    message = (
        "this form of the reward reads whole trajectories, and an environment has one step at a "
        "time: let the collector apply it, Collector(..., postproc=ValueReward(...), "
        "trajs_per_batch=..., traj_format='cat')."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.output_spec  # noqa: B018


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
            "unknown form of the reward 'diference': choose from difference, give your own as "
            "'module:Name', or offer it as an entry point in the group "
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
            "success, terminated, truncated, trajectory, and takes its options by keyword alone "
            "(after a *).",
        ),
        (None, {"gamma": 0.9}, "options without a form of the reward: gamma."),
    ],
)
def test_broken_forms(form, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DenseReward(form, **options)
