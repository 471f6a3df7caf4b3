"""MetaWorldEnv inside stock TorchRL: batched environments, transforms and collectors, and ours."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import ParallelEnv, SerialEnv, TransformedEnv

from rftf_torchrl import (
    EncoderConfig,
    Episode,
    EpisodeCollector,
    MetaWorldEnv,
    ValueReward,
    small_vla,
)

pytestmark = pytest.mark.metaworld

make_drawer = partial(MetaWorldEnv, "drawer-open", image_size=None, chunk_size=2, horizon=3)


@pytest.mark.slow
@pytest.mark.parametrize("batched", [SerialEnv, ParallelEnv])
def test_batched_environments(batched):
    env = batched(2, make_drawer)
    try:
        env.set_seed(0)
        data = env.rollout(5, break_when_any_done=False)
    finally:
        env.close()
    assert data.batch_size == (2, 5)
    assert data["vla_action", "chunk"].shape == (2, 5, 2, 4)
    assert data["next", "truncated"].squeeze(-1).sum(1).tolist() == [1, 1]
    seeds = data["episode_seed"].squeeze(-1)
    assert len(seeds.unique()) == 4
    assert (seeds[:, 0] == seeds[:, 2]).all()


def first_state_entry(state):
    return state[..., :1]


def value_model():
    return TensorDictModule(
        first_state_entry, in_keys=[("observation", "state")], out_keys=["temporal_value"]
    )


def make_rewarded(episode=None):
    name = "drawer-open" if episode is None else episode.task
    env = MetaWorldEnv(name, image_size=None, chunk_size=2, horizon=6)
    return TransformedEnv(env, ValueReward(value_model(), gamma=1.0))


def test_stock_collector_with_the_value_reward():
    env = make_rewarded()
    collector = Collector(env, frames_per_batch=12, total_frames=12)
    try:
        (batch,) = list(collector)
    finally:
        collector.shutdown()
    height = batch["observation", "state"][:, :1]
    moved = batch["next", "observation", "state"][:, :1] - height
    assert batch["collector", "traj_ids"].tolist() == [0] * 6 + [1] * 6
    assert len(batch["episode_seed"].unique()) == 2
    assert torch.allclose(batch["next", "reward"], moved, atol=1e-6)
    assert batch["next", "reward"].abs().sum() > 0


def policy():
    torch.manual_seed(0)
    config = EncoderConfig(image_size=None, state_dim=39)
    return small_vla(config, chunk_size=2, action_dim=4)


EPISODES = [
    Episode("drawer-open", 1),
    Episode("window-close", 1),
    Episode("drawer-open", 2, "close the drawer"),
    Episode("drawer-open", 3),
]


def test_episode_collector_with_the_small_policy_and_the_value_reward():
    actor = policy()
    with EpisodeCollector(make_rewarded, actor, workers=2) as collector:
        first = collector.collect(EPISODES, seed=5)
        again = collector.collect(EPISODES, seed=5)
        mean = collector.collect(EPISODES, deterministic=True)
    assert first.batch_size == (24,)
    assert first["collector", "traj_ids"].tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert first["episode_seed"][::6].flatten().tolist() == [1, 1, 2, 3]
    assert first["vla_action", "chunk"].shape == (24, 2, 4)
    assert (first == again).all()
    assert torch.equal(mean["vla_action", "chunk"], mean["loc"])
    assert not torch.equal(first["vla_action", "chunk"], first["loc"])
    state, following = first["observation", "state"], first["next", "observation", "state"]
    assert torch.equal(state[1:6], following[:5])
    assert torch.allclose(first["next", "reward"], following[:, :1] - state[:, :1], atol=1e-6)
    log_probs = actor.get_dist(first).log_prob(first["vla_action", "chunk"])
    assert torch.allclose(
        log_probs.flatten(), first["vla_action", "log_probs"].flatten(), atol=1e-4
    )
