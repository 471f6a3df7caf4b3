"""ValueReward: equal rewards on environment, collector and replay buffer."""

from __future__ import annotations

import math
import re
from functools import partial

import pytest
import torch
from _envs import ChunkWalkEnv, value_model, walk_policy
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import ParallelEnv, SerialEnv, ToyVLAEnv, TransformedEnv, check_env_specs
from torchrl.envs.transforms import Compose, MultiAction, StepCounter

from rftf_torchrl.transforms import ValueReward

WRITTEN = [
    "temporal_value",
    ("next", "temporal_value"),
    ("next", "reward"),
    ("next", "outcome_reward"),
    ("next", "dense_reward"),
]
OPTIONS = {"gamma": 0.9, "dense_weight": 0.5, "outcome_weight": 2.0}


def walk_env(batch_size=(), seed=0, **kwargs) -> TransformedEnv:
    return TransformedEnv(
        ChunkWalkEnv(batch_size, seed=seed), ValueReward(value_model(), **OPTIONS, **kwargs)
    )


def parallel_env(kind) -> TransformedEnv:
    """ValueReward inside every worker, or around all of them."""
    cls, inside = kind
    if inside:
        return cls(2, walk_env)
    return TransformedEnv(cls(2, ChunkWalkEnv), ValueReward(value_model(), **OPTIONS))


def episodes(batch_size=(), steps=40) -> TensorDict:
    """Several trajectories with terminations (also inside a chunk) and truncations."""
    torch.manual_seed(0)
    data = ChunkWalkEnv(batch_size).rollout(steps, walk_policy(), break_when_any_done=False)
    assert data["next", "terminated"].any()
    assert data["next", "truncated"].any()
    assert not data["next", "executed"].all()
    return data


def by_hand(data: TensorDict, terminal: str = "zero", limits=(-math.inf, math.inf)) -> dict:
    """The equation of the class, one transition at a time, in Python floats."""
    flat = data.reshape(-1)
    (low, high), rows = limits, []
    for i in range(len(flat)):
        step = flat[i]
        value, next_value = (
            min(max(math.tanh(0.5 * side["observation", "state"][0].item()) + 0.03, low), high)
            for side in (step, step["next"])
        )
        ended = step["next", "terminated"].item() and terminal == "zero"
        dense = 0.9 * (0.0 if ended else next_value) - value
        outcome = float(step["next", "success"].item())
        rows.append([value, next_value, 2.0 * outcome + 0.5 * dense, outcome, dense])
    columns = torch.tensor(rows).reshape(*data.batch_size, 5).split(1, -1)
    return dict(zip(WRITTEN, columns, strict=True))


def assert_written(data: TensorDict, expected: dict) -> None:
    for key, tensor in expected.items():
        assert data[key].dtype == torch.float32, key
        torch.testing.assert_close(data[key], tensor, rtol=0, atol=1e-6, msg=str(key))


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


def test_partial_reset_evaluates_only_what_was_reset():
    env = walk_env((4,))
    data = env.rollout(1, walk_policy())[:, -1]["next"]
    counter = env.transform.value_model.module
    counter.evaluated = 0
    before = data["temporal_value"].clone()
    reset = torch.tensor([[True], [False], [False], [True]])
    data = env.reset(data.set("_reset", reset))
    assert counter.evaluated == 2
    position = data["observation", "state"][:, :1]
    assert torch.equal(data["temporal_value"][1:3], before[1:3])
    torch.testing.assert_close(data["temporal_value"], torch.tanh(0.5 * position) + 0.03)


def test_native_autoreset_replaces_the_carried_value():
    transform = ValueReward(value_model())
    fresh = ChunkWalkEnv((2,)).reset()
    carried = TensorDict({"temporal_value": torch.full((2, 1), 5.0)}, [2])
    carried["_reset"] = torch.tensor([[True], [False]])
    value = transform._reset_on_native_autoreset(carried, fresh)["temporal_value"]
    start = torch.tanh(0.5 * fresh["observation", "state"][0, 0]) + 0.03
    torch.testing.assert_close(value, torch.stack([start, torch.tensor(5.0)])[:, None])


@pytest.mark.parametrize("batch_size", [(), (3,)])
@pytest.mark.parametrize("model", [value_model, lambda: None])
def test_specs(batch_size, model):
    env = TransformedEnv(ChunkWalkEnv(batch_size), ValueReward(model()))
    check_env_specs(env)
    rewards = {"reward", "outcome_reward", "dense_reward"}
    assert set(env.full_reward_spec.keys()) == rewards
    assert all(env.full_reward_spec[key].shape == (*batch_size, 1) for key in rewards)
    assert ("temporal_value" in env.observation_spec) == (model() is not None)


@pytest.mark.parametrize("inside", [True, False])
def test_serial_env(inside):
    env = parallel_env((SerialEnv, inside))
    check_env_specs(env)
    torch.manual_seed(0)
    data = env.rollout(20, walk_policy(), break_when_any_done=False)
    assert_written(data, by_hand(data))


@pytest.mark.parametrize("inside", [True, False])
def test_parallel_env(inside):
    env = parallel_env((partial(ParallelEnv, mp_start_method="fork"), inside))
    try:
        check_env_specs(env)
        torch.manual_seed(0)
        data = env.rollout(20, walk_policy(), break_when_any_done=False)
        assert_written(data, by_hand(data))
    finally:
        env.close(raise_if_closed=False)


def test_in_compose_and_after_other_transforms():
    env = TransformedEnv(
        ChunkWalkEnv(), Compose(StepCounter(), ValueReward(value_model(), **OPTIONS))
    )
    check_env_specs(env)
    data = env.rollout(5, walk_policy())
    assert_written(data, by_hand(data))
    assert "step_count" in data


def test_in_a_sequential_module():
    data = episodes()
    model = nn.Sequential(ValueReward(value_model(), **OPTIONS))
    assert_written(model(data), by_hand(data))


@pytest.mark.parametrize("batch_size", [(), (3,)])
def test_multi_action_in_an_environment_of_its_own(batch_size):
    model = TensorDictModule(
        lambda s: s.sum(-1, keepdim=True),
        in_keys=[("observation", "state")],
        out_keys=["temporal_value"],
    )
    walk = ToyVLAEnv(
        action_dim=2, state_dim=4, success_steps=1, success_tol=0.5, seed=0, batch_size=batch_size
    )
    chunked = TransformedEnv(walk, MultiAction.from_vla(stack_rewards=False))
    env = TransformedEnv(chunked, ValueReward(model), auto_unwrap=False)
    policy = TensorDictModule(
        lambda s: torch.rand(*s.shape[:-1], 4, 2) * 2 - 1,
        in_keys=[("observation", "state")],
        out_keys=[("vla_action", "chunk")],
    )
    torch.manual_seed(0)
    data = env.rollout(8, policy, break_when_any_done=False)
    assert data["next", "success"].any()
    offline = ValueReward(model)(data.exclude(*WRITTEN).clone())
    for key in WRITTEN:
        torch.testing.assert_close(data[key], offline[key])
    assert torch.equal(data["next", "outcome_reward"], data["next", "success"].float())


def test_multi_action_in_the_same_environment_is_refused():
    env = ToyVLAEnv(action_dim=2, state_dim=4, success_steps=1)
    env = TransformedEnv(env, Compose(MultiAction.from_vla(stack_rewards=False)))
    env.append_transform(ValueReward(None))
    message = (
        "MultiAction skips the other transforms of its TransformedEnv when an episode ends inside "
        "a chunk, so the success reward would be lost. Wrap twice: TransformedEnv("
        "TransformedEnv(env, MultiAction(...)), ValueReward(...), auto_unwrap=False); or use "
        "ValueReward as the collector's postproc."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        env.output_spec  # noqa: B018


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
    model = value_model()
    model = TensorDictModule(model.module, in_keys=model.in_keys, out_keys=["progress"])
    ValueReward(
        model,
        success_key="solved",
        reward_key=("agent", "reward"),
        outcome_key="solved_reward",
        dense_key="progress_reward",
        value_key="progress",
    )(data)
    new = {("agent", "reward"), "solved_reward", "progress_reward", "progress"}
    assert new <= set(data["next"].keys(True))
    assert (data["next", "reward"] == -7.0).all()


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
            "'next' is missing: ValueReward needs transitions, with success, terminated and the "
            "next state under 'next'. Collectors with compact_obs=True drop the latter.",
        ),
        "no success": (
            KeyError,
            data.exclude(("next", "success")),
            "('next', 'success') is missing. Have the environment write it, or name another entry "
            "with success_key= (that of torchrl's SuccessReward).",
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
        ({"gamma": 1.5}, "gamma must be in [0, 1], got 1.5."),
        ({"value_range": (1.0, 0.0)}, "value_range must be (low, high) with low < high"),
        ({"terminal": "drop"}, "terminal must be 'zero' or 'keep', got 'drop'."),
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
