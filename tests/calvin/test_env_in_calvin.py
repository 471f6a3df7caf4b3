"""CalvinEnv in the real simulator: beside calvin_env, in stock TorchRL, in workers that die."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from direct import run_directly
from fake_calvin import DEADLY_SEED, TRACE, deadly_states, trace_start
from tensordict import TensorDict
from torchrl.envs import ParallelEnv, check_env_specs

from rftf_torchrl import (
    CalvinEnv,
    CalvinFactory,
    EncoderConfig,
    Episode,
    EpisodeCollector,
    small_vla,
    state_vector,
)

pytestmark = pytest.mark.calvin


def start(env, seed):
    return env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))


def test_specs_with_all_cameras(make_env):
    env = make_env(None, image_size=16, wrist_size=12, depth=True, chunk_size=2)
    check_env_specs(env)
    env.set_task("open_drawer")
    step = env.rollout(1)["next"][0]
    assert step["observation", "image"].float().std() > 10
    assert step["observation", "wrist_image"].float().std() > 10
    assert 3.5 < step["observation", "depth"].mean() < 6.0
    assert 0.01 < step["observation", "wrist_depth"].min() < 0.5


def test_observations_and_rewards_are_those_of_calvin_env(make_env, tmp_path):
    """Chunks of 8 that close the drawer, the last one cut short, beside calvin_env's own steps."""
    actions = TRACE["actions"].astype(np.float32)
    doubles = actions.astype(np.float64)
    direct = run_directly(tmp_path, "D", trace_start("close_drawer", 0), doubles)
    solved = [step for step, tasks in enumerate(direct["done"]) if "close_drawer" in tasks.split()]
    env = make_env(states=trace_start, chunk_size=8, image_size=16)
    chunks = torch.from_numpy(np.pad(actions, ((0, 6), (0, 0)), mode="edge")).reshape(5, 8, 7)
    data, steps = env.reset(), []
    for chunk in chunks:
        data = env.step(data.set(env.action_key, chunk))["next"]
        steps.append(data.clone())
    steps = torch.stack(steps)
    ends = [8, 16, 24, 32, solved[0] + 1]
    state = state_vector(direct["robot_obs"][ends], direct["scene_obs"][ends])
    assert torch.equal(steps["observation", "state"], torch.from_numpy(state))
    assert solved[0] == 33
    assert steps["reward"].flatten().tolist() == [0, 0, 0, 0, 1]
    assert steps["executed"].sum(1).tolist() == [8, 8, 8, 8, 2]
    assert steps["terminated"].flatten().tolist() == [False] * 4 + [True]


def test_the_picture_is_that_of_calvin_env(make_env, tmp_path):
    actions = TRACE["actions"][:33].astype(np.float32)
    actions = np.concatenate([actions, np.tile([0, 0, 0, 0, 0, 0, 1.0], (7, 1))])
    direct = run_directly(tmp_path, "D", trace_start("turn_on_led", 0), actions)
    env = make_env("turn_on_led", states=trace_start, chunk_size=40, image_size=200, wrist_size=84)
    chunk = torch.from_numpy(actions.astype(np.float32))
    seen = env.step(env.reset().set(env.action_key, chunk))["next", "observation"]
    for name, key in (("rgb_static", "image"), ("rgb_gripper", "wrist_image")):
        assert np.array_equal(seen[key].numpy(), direct[name][0].transpose(2, 0, 1))


def episode(env, seed, actions):
    data = [start(env, seed)]
    for chunk in actions:
        data.append(env.step(data[-1].select().set(env.action_key, chunk))["next"])
    return torch.stack([step.select("observation", "success") for step in data])


def test_a_seed_decides_the_episode_whatever_ran_before(make_env):
    actions = torch.rand(6, 10, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    actions[..., 2] -= 0.3
    env = make_env("open_drawer", image_size=32, wrist_size=16, chunk_size=10)
    first, other, again = (episode(env, seed, actions) for seed in (5, 6, 5))
    busy = make_env(None, image_size=32, wrist_size=16, chunk_size=10, seed=9, horizon=3)
    busy.rollout(7, break_when_any_done=False)
    busy.set_task("open_drawer")
    elsewhere = episode(busy, 5, actions)
    assert (first == again).all()
    assert (first == elsewhere).all()
    assert (first["observation", "image"][0] != other["observation", "image"][0]).any()


make_state_env = partial(CalvinEnv, "open_drawer", image_size=None, chunk_size=4, horizon=3)


def test_environments_beside_each_other_do_not_disturb_each_other():
    env = ParallelEnv(2, make_state_env)
    try:
        env.set_seed(0)
        data = env.rollout(3)
    finally:
        env.close()
    assert data.batch_size == (2, 3)
    assert len(data["episode_seed"].unique()) == 2
    alone = make_state_env()
    for beside in data:
        seed = beside["episode_seed"][0].item()
        expected = episode(alone, seed, beside["vla_action", "chunk"])["observation", "state"]
        assert torch.equal(beside["observation", "state"], expected[:-1])
        assert torch.equal(beside["next", "observation", "state"], expected[1:])
    alone.close()


def policy():
    torch.manual_seed(0)
    config = EncoderConfig(image_size=None, state_dim=53)
    return small_vla(config, chunk_size=8, action_dim=7)


EPISODES = [
    Episode("open_drawer", 1),
    Episode("close_drawer", 2, "shut the drawer"),
    Episode("open_drawer", 3),
    Episode("turn_on_led", 4),
]
factory = partial(CalvinFactory, "train", image_size=None, chunk_size=8, horizon=4)


def test_workers_return_what_one_process_returns():
    batches = []
    for workers in (0, 2):
        with EpisodeCollector(factory(), policy(), workers=workers) as collector:
            batches.append(collector.collect(EPISODES, deterministic=True))
    alone, together = batches
    assert alone["collector", "traj_ids"].unique().tolist() == [0, 1, 2, 3]
    assert alone.batch_size == together.batch_size
    for key in (("observation", "state"), ("next", "observation", "state"), "task_id"):
        assert torch.equal(alone[key], together[key])


def test_a_worker_that_is_killed_is_replaced_and_its_episode_is_no_failure(caplog):
    episodes = [*EPISODES[:2], Episode("turn_on_led", DEADLY_SEED), *EPISODES[2:]]
    make_env = factory(states=deadly_states)
    with EpisodeCollector(make_env, policy(), workers=1) as collector:
        batch = collector.collect(episodes, deterministic=True)
        assert batch["collector", "traj_ids"].unique().tolist() == [0, 1, 3, 4]
        assert collector.crashed == 1
    assert not batch["next", "crashed"].any()
    assert caplog.messages == [
        f"a simulator process died with exit code -9; {episodes[2]}, 2 in the list, is dropped"
    ]


def test_a_dead_simulator_inside_an_environment_is_replaced(make_env, caplog):
    import pybullet

    env = make_env("open_drawer", chunk_size=8, image_size=16)
    before = start(env, 3)
    pybullet.disconnect(physicsClientId=env.simulator._env.cid)
    step = env.rand_step(before.clone())["next"]
    assert step["crashed"].item()
    assert step["truncated"].item()
    assert not step["terminated"].item()
    assert (step["observation"] == before["observation"]).all()
    assert (start(env, 3)["observation"] == before["observation"]).all()
    assert not env.rand_step(start(env, 3))["next", "crashed"].item()
    assert len(caplog.messages) == 2
