"""MetaWorldEnv: specs, keys, seeds, and the ways in which an episode ends."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import check_env_specs

from rftf_torchrl import MetaWorldEnv, ScriptedExpert
from rftf_torchrl.errors import SimulatorCrashedError

pytestmark = pytest.mark.metaworld


def start(env, seed):
    return env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))


def flags(step):
    """The flags that are set."""
    names = ("success", "done", "terminated", "truncated", "crashed")
    return {name for name in names if step[name].item()}


def chunk(value=0.0, size=5):
    return TensorDict({("vla_action", "chunk"): torch.full((size, 4), value)})


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("image_size", [None, 32])
def test_specs_keys_shapes_and_dtypes(make_env, request, image_size, chunk_size):
    if image_size is not None:
        request.getfixturevalue("pictures")
    env = make_env(image_size=image_size, chunk_size=chunk_size)
    check_env_specs(env)
    data = env.rollout(2)
    expected = {
        ("observation", "state"): ((39 if image_size is None else 4,), torch.float32),
        ("instruction", "tokens"): ((16,), torch.int64),
        ("instruction", "mask"): ((16,), torch.bool),
        "task_id": ((1,), torch.int64),
        "episode_seed": ((1,), torch.int64),
        "success": ((1,), torch.bool),
        "crashed": ((1,), torch.bool),
        "executed": ((chunk_size or 1,), torch.bool),
        "done": ((1,), torch.bool),
        "terminated": ((1,), torch.bool),
        "truncated": ((1,), torch.bool),
    }
    if image_size is not None:
        expected["observation", "image"] = ((3, 32, 32), torch.uint8)

    def described(data):
        return {k: (tuple(v.shape[1:]), v.dtype) for k, v in data.items(True, True)}

    reward = {"reward": ((1,), torch.float32)}
    assert described(data["next"]) == expected | reward
    action = "action" if chunk_size is None else ("vla_action", "chunk")
    shape = (4,) if chunk_size is None else (3, 4)
    assert described(data.exclude("next")) == expected | {action: (shape, torch.float32)}
    assert data["task_id"].unique().tolist() == [18]


def test_a_seed_decides_the_episode_whatever_ran_before(make_env, pictures):
    actions = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def episode(env, seed):
        data = [start(env, seed)]
        for action in actions:
            data.append(env.step(data[-1].select().set("action", action))["next"])
        return torch.stack([step.select("observation") for step in data])

    env = make_env("push", image_size=32)
    first, other, again = (episode(env, seed) for seed in (5, 6, 5))
    busy = make_env("push", image_size=32, seed=9)
    busy.rollout(7)
    elsewhere = episode(busy, 5)
    assert (first == again).all()
    assert (first == elsewhere).all()
    assert (first["observation", "image"][0] != other["observation", "image"][0]).any()


def test_training_and_test_episodes_differ_at_every_seed(make_env):
    starts = {}
    for split in ("train", "test"):
        env = make_env(split=split)
        starts[split] = torch.stack([start(env, s)["observation", "state"] for s in range(20)])
    distance = torch.cdist(starts["train"], starts["test"])
    assert distance.min() > 1e-5
    assert distance.diagonal().median() > 0.01


def test_successive_resets_go_through_the_seeds_sequence(make_env):
    env = make_env(seed=3, horizon=2)
    other = make_env(seed=4, horizon=2)
    seeds = env.rollout(6, break_when_any_done=False)["episode_seed"].flatten().tolist()
    assert seeds[0::2] == seeds[1::2]
    assert len(set(seeds)) == 3
    env.set_seed(3)
    assert [env.reset()["episode_seed"].item() for _ in range(3)] == seeds[0::2]
    assert other.reset()["episode_seed"].item() != seeds[0]


def test_another_instruction_changes_the_words_only(make_env):
    usual, other = make_env(), make_env(instruction="close the drawer")
    first, second = start(usual, 1), start(other, 1)
    assert (first["observation", "state"] == second["observation", "state"]).all()
    assert (first["task_id"], other.instruction) == (second["task_id"], "close the drawer")
    assert (first["instruction", "tokens"] != second["instruction", "tokens"]).any()


def test_success_in_the_middle_of_a_chunk(make_env, monkeypatch):
    env = make_env(chunk_size=5, action_repeat=2)
    env.reset()
    calls = []

    def succeed_at_the_sixth_call(action):
        calls.append(action)
        return len(calls) == 6

    monkeypatch.setattr(env.simulator, "step", succeed_at_the_sixth_call)
    step = env.step(chunk())["next"]
    assert len(calls) == 6
    assert step["executed"].tolist() == [True, True, True, False, False]
    assert step["reward"].item() == 1.0
    assert flags(step) == {"success", "done", "terminated"}


def test_success_in_the_last_decision_is_a_termination(make_env, monkeypatch):
    env = make_env(horizon=1)
    env.reset()
    monkeypatch.setattr(env.simulator, "step", lambda action: True)
    step = env.rand_step(env.reset())["next"]
    assert flags(step) == {"success", "done", "terminated"}


def test_the_horizon_truncates(make_env):
    data = make_env(horizon=3, chunk_size=2).rollout(10)
    assert data["next", "truncated"].flatten().tolist() == [False, False, True]
    assert data["next", "done"].flatten().tolist() == [False, False, True]
    assert not data["next", "terminated"].any()
    assert not data["next", "success"].any()
    assert data["next", "executed"].all()
    assert (data["next", "reward"] == 0).all()


def crash_by_exception(env, monkeypatch):
    def crash(action):
        raise SimulatorCrashedError

    monkeypatch.setattr(env.simulator, "step", crash)


def crash_by_physics(env, monkeypatch):
    env.simulator.data.qvel[:] = 1e12


@pytest.mark.parametrize("crash", [crash_by_exception, crash_by_physics])
def test_a_crash_is_neither_failure_nor_termination(make_env, monkeypatch, tmp_path, crash):
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log of unstable physics
    env = make_env("pick-place", chunk_size=5)
    before = env.reset()
    crash(env, monkeypatch)
    step = env.step(chunk())["next"]
    assert flags(step) == {"done", "truncated", "crashed"}
    assert step["executed"].tolist() == [True, False, False, False, False]
    assert (step["observation", "state"] == before["observation", "state"]).all()
    monkeypatch.undo()
    after = start(env, before["episode_seed"].item())
    assert (after["observation", "state"] == before["observation", "state"]).all()
    assert not env.step(chunk())["next", "crashed"].any()


@pytest.mark.parametrize(("chunk_size", "key"), [(None, "action"), (5, "('vla_action', 'chunk')")])
def test_an_action_that_is_not_finite(make_env, chunk_size, key):
    env = make_env(chunk_size=chunk_size)
    start(env, 8)
    action = torch.full((4,) if chunk_size is None else (5, 4), float("nan"))
    message = f"{key}: the action for task 'drawer-open', episode seed 8, decision 0 is not finite"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.step(TensorDict().set(env.action_key, action))


@pytest.mark.parametrize(
    ("size", "key", "given", "expected"),
    [
        (None, "action", (8,), (4,)),
        (4, "('vla_action', 'chunk')", (4, 3), (4, 4)),
        (5, "('vla_action', 'chunk')", (4, 4), (5, 4)),
        (5, "('vla_action', 'chunk')", (4, 5), (5, 4)),
    ],
)
def test_an_action_of_another_shape(make_env, size, key, given, expected):
    env = make_env(chunk_size=size)
    start(env, 8)
    before = env.simulator.state.copy()
    message = (
        f"{key}: the action for task 'drawer-open', episode seed 8, decision 0 has the shape "
        f"{given}, and the environment's action spec has {expected}: give each decision as many "
        "actions, of as many numbers, as the spec has"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        env.step(TensorDict().set(env.action_key, torch.ones(given)))
    assert (env.simulator.state == before).all()


@pytest.mark.parametrize("name", ["image_size", "chunk_size", "action_repeat", "horizon"])
def test_counts_must_be_positive(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
        MetaWorldEnv("drawer-open", **{name: 0})


def test_unknown_task_and_split():
    with pytest.raises(ValueError, match=r"^unknown Meta-World task 'fly'; choose from assembly, "):
        MetaWorldEnv("fly")
    with pytest.raises(ValueError, match=r"^split must be 'train' or 'test', got 'all'$"):
        MetaWorldEnv("drawer-open", image_size=None, split="all")


@pytest.mark.parametrize(
    ("task", "chunk_size", "action_repeat"),
    [("drawer-open", None, 1), ("window-close", 5, 1), ("drawer-open", 5, 2)],
)
def test_the_scripted_expert_solves_it(make_env, task, chunk_size, action_repeat):
    """The expert sees the state at each decision; a chunk holds one action for all of it."""
    env = make_env(task, chunk_size=chunk_size, action_repeat=action_repeat, horizon=300)
    expert = ScriptedExpert(env.task)
    data = start(env, 0)
    while not data["done"]:
        action = torch.as_tensor(expert.action(env.simulator.state), dtype=torch.float32)
        action = action if chunk_size is None else action.expand(chunk_size, 4).clone()
        data = env.step(data.set(env.action_key, action))["next"]
    assert data["success"].item()
    assert data["terminated"].item()


def test_expert_noise_is_seeded_and_stays_in_bounds(make_env):
    env = make_env()
    env.reset()

    def actions(**arguments):
        expert = ScriptedExpert(env.task, **arguments)
        meant = [expert.action(env.simulator.state) for _ in range(20)]
        assert np.ptp(meant, axis=0).max() == 0.0
        return np.stack([expert.disturb(action) for action in meant])

    noisy = actions(noise=0.5, seed=1)
    assert np.array_equal(noisy, actions(noise=0.5, seed=1))
    assert not np.array_equal(noisy, actions(noise=0.5, seed=2))
    assert np.abs(noisy).max() <= 1.0
    assert np.ptp(actions(), axis=0).max() == 0.0


def test_touch_is_what_metaworld_finds_contact_by_contact(make_env):
    env = make_env("pick-place")
    simulator, expert = env.simulator, ScriptedExpert(env.task)
    metaworld = simulator._env
    geom = metaworld._get_id_main_object()
    start(env, 3)
    found = []
    for _ in range(60):
        simulator.step(expert.action(simulator.state))
        found.append(metaworld.touching_object(geom))
        assert found[-1] == type(metaworld).touching_object(metaworld, geom)
    assert True in found
    assert False in found
