"""ValueReward in environments: resets, specs, several at once, and beside other transforms."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from _envs import ChunkWalkEnv, value_model, walk_policy
from _reward_by_hand import OPTIONS, WRITTEN, assert_written, by_hand, walk_env
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import ParallelEnv, SerialEnv, ToyVLAEnv, TransformedEnv, check_env_specs
from torchrl.envs.transforms import (
    Compose,
    FrameSkipTransform,
    MultiAction,
    RewardSum,
    StepCounter,
    TerminateTransform,
    Transform,
)
from torchrl.modules import ValueOperator

from rftf_torchrl import DenseReward, ValueReward, label_outcomes


def parallel_env(kind) -> TransformedEnv:
    """ValueReward inside every worker, or around all of them."""
    cls, inside = kind
    if inside:
        return cls(2, walk_env)
    return TransformedEnv(cls(2, ChunkWalkEnv), ValueReward(value_model(), **OPTIONS))


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
    assert env.reward_keys == [env.reward_key] == ["reward"]
    assert env.full_reward_spec["reward"].shape == (*batch_size, 1)
    parts = {"outcome_reward", "dense_reward"}
    assert all(env.observation_spec[key].shape == (*batch_size, 1) for key in parts)
    assert not any(env.reset()[key].any() for key in parts)
    assert ("temporal_value" in env.observation_spec) == (model() is not None)


def test_rewards_are_summed_by_torchrl():
    env = TransformedEnv(walk_env((3,)), RewardSum(), auto_unwrap=True)
    check_env_specs(env)
    data = env.rollout(3, walk_policy())
    torch.testing.assert_close(data["next", "episode_reward"], data["next", "reward"].cumsum(1))


def test_skipped_steps_before_the_reward_are_one_decision():
    env = TransformedEnv(
        ChunkWalkEnv(goal=100.0),
        Compose(FrameSkipTransform(2), ValueReward(value_model(), **OPTIONS)),
    )
    check_env_specs(env)
    data = env.rollout(2, walk_policy())
    assert_written(data, by_hand(data))


def test_skipped_steps_after_the_reward_add_up():
    actions = TensorDictModule(
        lambda state: torch.full((*state.shape[:-1], 3, 1), 0.25),
        in_keys=[("observation", "state")],
        out_keys=[("vla_action", "chunk")],
    )
    env = TransformedEnv(walk_env(), FrameSkipTransform(2), auto_unwrap=True)
    check_env_specs(env)
    env.set_seed(0)
    single = walk_env()
    single.set_seed(0)
    whole = single.rollout(4, actions)["next"]
    skipped = env.rollout(2, actions)["next"]
    torch.testing.assert_close(skipped["reward"], whole["reward"].reshape(2, 2).sum(1)[:, None])
    torch.testing.assert_close(skipped["temporal_value"], whole["temporal_value"][1::2])


def test_a_termination_before_the_reward_ends_the_value():
    stop = TerminateTransform(lambda data: data["observation", "state"][..., 1:] >= 2)
    env = TransformedEnv(
        ChunkWalkEnv(goal=100.0), Compose(stop, ValueReward(value_model(), **OPTIONS))
    )
    data = env.rollout(4, walk_policy())
    assert data["next", "terminated"].squeeze(-1).tolist() == [False, True]
    assert_written(data, by_hand(data))


class OwnTermination(Transform):
    def __init__(self):
        super().__init__(in_keys=["success"], out_keys=["terminated"])


@pytest.mark.parametrize(
    "later", [lambda: TerminateTransform(lambda data: data["success"]), OwnTermination]
)
def test_a_termination_after_the_reward_is_refused(later):
    env = TransformedEnv(ChunkWalkEnv(), Compose(ValueReward(value_model()), later()))
    name = type(env.transform[1]).__name__
    message = (
        f"{name} changes 'terminated' after the reward has been given, so the value at such a "
        "termination would be taken for that of a state that goes on. Put it before the reward: "
        f"Compose({name}(...), ValueReward(...))."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.output_spec  # noqa: B018


@pytest.mark.parametrize("inside", [True, False])
def test_serial_env(inside):
    env = parallel_env((SerialEnv, inside))
    check_env_specs(env)
    torch.manual_seed(0)
    data = env.rollout(20, walk_policy(), break_when_any_done=False)
    assert_written(data, by_hand(data))


@pytest.mark.slow
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


def test_the_value_operator_of_torchrl_is_a_value_model():
    """It writes ``"state_value"``."""
    plain = value_model()
    operator = ValueOperator(plain.module, in_keys=plain.in_keys)
    assert operator.out_keys == ["state_value"]
    data = ChunkWalkEnv([4]).rollout(8, walk_policy(), break_when_any_done=False).reshape(-1)
    expected = ValueReward(plain)(data.clone())
    found = ValueReward(operator)(data.clone())
    for key in ("temporal_value", ("next", "temporal_value"), ("next", "reward")):
        assert torch.equal(found[key], expected[key])
    assert found.get("state_value", None) is None


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda data: ValueReward(value_model(), gamma=1.0)(data),
            "('instruction', 'tokens'), ('observation', 'state') missing under 'next', so that the "
            "next state would pass for the state itself: V(s') = V(s). Collectors with "
            "compact_obs=True leave out what the next state shows: build yours with "
            "compact_obs=False.",
        ),
        (
            label_outcomes,
            "('next', 'success') is missing, so the outcome of a trajectory is not known. "
            "Collectors with compact_obs=True leave out what the next state shows: build yours "
            "with compact_obs=False.",
        ),
    ],
)
def test_a_collector_with_compact_obs_is_told_to_have_none(use, message):
    collector = Collector(
        ChunkWalkEnv([4]),
        walk_policy(),
        frames_per_batch=16,
        total_frames=16,
        compact_obs=True,
        auto_register_policy_transforms=False,
    )
    data = next(iter(collector)).reshape(-1)
    collector.shutdown()
    with pytest.raises(KeyError) as caught:
        use(data)
    assert caught.value.args == (message,)


def test_native_autoreset_replaces_the_largest_value():
    reward = DenseReward("peak", dense_weight=0.5)
    fresh = TensorDict({"temporal_value": torch.tensor([[0.1], [0.2]])}, [2])
    carried = TensorDict({"best_value": torch.full((2, 1), 0.9)}, [2])
    carried["_reset"] = torch.tensor([[True], [False]])
    best = reward._reset_on_native_autoreset(carried, fresh)["best_value"]
    torch.testing.assert_close(best, torch.tensor([[0.1], [0.9]]))


def test_without_a_model_every_form_is_the_sparse_reward_in_an_environment():
    reward = ValueReward(None, form="peak", dense_weight=0.5)
    env = TransformedEnv(ChunkWalkEnv(), reward)
    rollout = env.rollout(40, walk_policy(), break_when_any_done=False)
    assert rollout["next", "success"].any()
    assert torch.equal(rollout["next", "reward"], rollout["next", "success"].float())
