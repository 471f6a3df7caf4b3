"""ValueReward: equal rewards on environment, collector and replay buffer."""

from __future__ import annotations

import pytest
import torch
from _envs import ChunkWalkEnv, value_model, walk_policy
from _reward_by_hand import OPTIONS, WRITTEN, assert_written, by_hand, episodes, walk_env
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import TransformedEnv

from rftf_torchrl import ValueReward


@pytest.mark.parametrize("terminal", ["zero", "keep"])
@pytest.mark.parametrize("batch_size", [(), (3,)])
def test_data_path_follows_the_equation(batch_size, terminal):
    data = episodes(batch_size)
    expected = by_hand(data, terminal)
    out = ValueReward(value_model(), terminal=terminal, **OPTIONS)(data)
    assert out is data
    assert_written(data, expected)


@pytest.mark.parametrize("terminal", ["zero", "keep"])
@pytest.mark.parametrize("batch_size", [(), (3,), (2, 2)])
def test_env_path_follows_the_equation(batch_size, terminal):
    torch.manual_seed(0)
    env = walk_env(batch_size, terminal=terminal)
    data = env.rollout(40, walk_policy(), break_when_any_done=False)
    assert data["next", "terminated"].any()
    assert data["next", "truncated"].any()
    assert_written(data, by_hand(data, terminal))


@pytest.mark.parametrize("on_env", [False, True])
def test_values_are_clipped_to_their_range(on_env):
    torch.manual_seed(0)
    limits = (0.1, 0.3)
    if on_env:
        env = walk_env((3,), value_range=limits)
        data = env.rollout(40, walk_policy(), break_when_any_done=False)
    else:
        data = ValueReward(value_model(), value_range=limits, **OPTIONS)(episodes((3,)))
    expected = by_hand(data, limits=limits)
    assert all((expected["temporal_value"] == limit).any() for limit in torch.tensor(limits))
    assert_written(data, expected)


@pytest.mark.parametrize("layout", [{}, {"trajs_per_batch": 5, "traj_format": "cat"}])
@pytest.mark.parametrize("on_env", [False, True])
def test_collector_path_follows_the_equation(on_env, layout):
    torch.manual_seed(0)
    collector = Collector(
        walk_env() if on_env else ChunkWalkEnv(),
        walk_policy(),
        frames_per_batch=20,
        total_frames=40,
        postproc=None if on_env else ValueReward(value_model(), **OPTIONS),
        auto_register_policy_transforms=False,
        **layout,
    )
    batches = 0
    for data in collector:
        assert_written(data, by_hand(data))
        batches += 1
    collector.shutdown()
    assert batches >= 2


@pytest.mark.parametrize("invert", [False, True])
def test_replay_buffer_path_follows_the_equation(invert):
    data = episodes()
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(40), batch_size=32)
    buffer.append_transform(ValueReward(value_model(), **OPTIONS), invert=invert)
    buffer.extend(data.clone())
    sample = buffer.sample()
    assert_written(sample, by_hand(sample))
    assert (("next", "dense_reward") in buffer._storage.get(range(2)).keys(True)) == invert


def test_the_three_paths_agree_on_one_rollout():
    torch.manual_seed(0)
    env_data = walk_env().rollout(40, walk_policy(), break_when_any_done=False)
    raw = env_data.exclude(*WRITTEN)
    raw["next", "reward"] = torch.full_like(env_data["next", "reward"], -7.0)
    data = ValueReward(value_model(), **OPTIONS)(raw.clone())
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(40), batch_size=40)
    buffer.append_transform(ValueReward(value_model(), **OPTIONS))
    index = buffer.extend(raw.clone())
    stored = buffer[index]
    for key in WRITTEN:
        for other in (data, stored):
            torch.testing.assert_close(other[key], env_data[key], rtol=0, atol=1e-6)


def test_number_of_evaluations():
    torch.manual_seed(0)
    env = walk_env()
    counter = env.transform.value_model.module
    data = env.rollout(30, walk_policy(), break_when_any_done=False)
    resets = 1 + data["next", "done"][:-1].sum().item()
    assert counter.evaluated == 30 + resets
    counter.evaluated = 0
    ValueReward(env.transform.value_model)(data)
    assert counter.evaluated == 30 + resets


def test_in_a_sequential_module():
    data = episodes()
    model = nn.Sequential(ValueReward(value_model(), **OPTIONS))
    assert_written(model(data), by_hand(data))


def test_sparse_reward_without_a_model():
    data = episodes()
    ValueReward(None, outcome_weight=3.0)(data)
    assert torch.equal(data["next", "reward"], 3.0 * data["next", "success"].float())
    assert not data["next", "dense_reward"].any()
    assert "temporal_value" not in data
    assert "temporal_value" not in data["next"]


def test_shaping_telescopes_over_a_truncated_trajectory():
    torch.manual_seed(0)
    env = TransformedEnv(ChunkWalkEnv(goal=100.0), ValueReward(value_model(), gamma=0.9))
    data = env.rollout(4, walk_policy())
    assert data["next", "truncated"][-1].item()
    discounts = 0.9 ** torch.arange(4.0)
    total = (discounts * data["next", "dense_reward"].squeeze(-1)).sum()
    first, last = data["temporal_value"][0], data["next", "temporal_value"][-1]
    torch.testing.assert_close(total, (0.9**4 * last - first).squeeze())


def test_the_model_is_frozen_shared_and_left_alone():
    model = value_model().train()
    model.module.dropout.eval()
    transform = ValueReward(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert transform.clone().value_model is model
    assert not list(transform.parameters())
    assert not transform.state_dict()
    env = TransformedEnv(ChunkWalkEnv(), transform)
    env.rollout(3, walk_policy())
    transform.forward(episodes())
    assert model.training
    assert not model.module.dropout.training


def test_dropout_is_off_in_training_mode():
    data = episodes()
    ValueReward(value_model().train(), **OPTIONS)(data)
    assert_written(data, by_hand(data))


def test_chunks_of_states_change_nothing():
    data, expected = episodes(), by_hand(episodes())
    assert_written(ValueReward(value_model(), chunk_size=7, **OPTIONS)(data), expected)


def test_other_keys():
    data = episodes()
    data.rename_key_(("next", "success"), ("next", "solved"))
    data.rename_key_(("next", "terminated"), ("next", "over"))
    model = value_model()
    model = TensorDictModule(model.module, in_keys=model.in_keys, out_keys=["progress"])
    ValueReward(
        model,
        success_key="solved",
        terminated_key="over",
        reward_key=("agent", "reward"),
        outcome_key="solved_reward",
        dense_key="progress_reward",
        value_key="progress",
    )(data)
    new = {("agent", "reward"), "solved_reward", "progress_reward", "progress"}
    assert new <= set(data["next"].keys(True))
    assert (data["next", "reward"] == -7.0).all()
