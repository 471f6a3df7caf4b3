"""LiberoEnv: equal to LIBERO's own environment, seeded to the bit, and how episodes end."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from direct_libero import TASKS, actions, direct_env, direct_start, fulfil
from tensordict import TensorDict
from torchrl.envs import check_env_specs

from rftf_torchrl import OfficialStarts, libero_states
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.libero.expert.expert import start_expert
from rftf_torchrl.libero.install import libero_module
from rftf_torchrl.libero.simulator import LiberoSimulator

pytestmark = [pytest.mark.libero, pytest.mark.slow]


def start(env, seed):
    return env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))


def flags(step):
    """The flags that are set."""
    names = ("success", "done", "terminated", "truncated", "crashed")
    return {name for name in names if step[name].item()}


def same(first, second):
    """Whether two of LIBERO's observations are equal to the bit."""
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


def drive(step, raw):
    """Random actions, then the expert until it succeeds: what each step of ``step`` gives."""
    found = [step(action) for action in actions(25)]
    act = start_expert(raw)
    while len(found) < 250 and not found[-1][1]:
        found.append(step(act().astype(np.float32)))
    return found


DRAWER = "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate"


@pytest.mark.parametrize(("suite", "task"), [*TASKS.items(), ("libero_spatial", DRAWER)])
def test_an_episode_is_that_of_liberos_own_environment(make_env, suite, task):
    env = make_env(task, suite, split="test")
    first = (start(env, 3), dict(env.simulator.observed))[1]
    positions = env.simulator.data.qpos.copy()

    def step(action):
        after = env.step(TensorDict({"action": torch.from_numpy(action)}))["next"]
        reward = after["reward"].item()
        return dict(env.simulator.observed), bool(after["terminated"]), reward

    ours = drive(step, env.simulator.raw)
    make_env().close()
    own = direct_env(suite, task)
    assert same(first, direct_start(own, 2 * 3 + 1))
    assert np.array_equal(positions, own.sim.data._data.qpos)

    def own_step(action):
        observed, reward, done, _ = own.step(action)
        return observed, done, reward

    theirs = drive(own_step, own.env)
    own.close()
    assert [step[1:] for step in ours] == [step[1:] for step in theirs]
    assert ours[-1][1:] == (True, 1.0)
    assert all(same(a[0], b[0]) for a, b in zip(ours, theirs, strict=True))


def test_official_states_are_the_packages_own(make_env):
    suite, task = "libero_spatial", TASKS["libero_spatial"]
    states = libero_states(suite, task)
    benchmark = libero_module("libero.libero.benchmark").get_benchmark_dict()[suite]()
    assert np.array_equal(states, benchmark.get_task_init_states(8))
    assert benchmark.get_task(8).name == task
    assert states.shape[0] == 50
    env = make_env(task, suite, split="test", starts=OfficialStarts(suite, first_seed=7))
    start(env, 11)
    ours = dict(env.simulator.observed), env.simulator.model.body_pos.copy()
    make_env().close()
    own = direct_env(suite, task)
    theirs = direct_start(own, 7, states[11])
    assert same(ours[0], theirs)
    assert np.array_equal(ours[1], own.sim.model._model.body_pos)
    own.close()


def test_a_seed_decides_the_episode_whatever_ran_before(make_env, pictures):
    chunks = torch.from_numpy(actions(6)).unflatten(0, (2, 3))

    def episode(env, seed):
        data = [start(env, seed)]
        for chunk in chunks:
            data.append(env.step(data[-1].set(("vla_action", "chunk"), chunk))["next"])
        return torch.stack([step.select("observation") for step in data])

    env = make_env(image_size=48, wrist=True, chunk_size=3)
    first, other, again = (episode(env, seed) for seed in (5, 6, 5))
    assert (first == again).all()
    env.set_task("put_the_bowl_on_the_plate")
    env.reset()
    env.set_task("turn_on_the_stove")
    assert (first == episode(env, 5)).all()
    assert (first["observation", "image"][0] != other["observation", "image"][0]).any()
    np.random.seed(1)
    drawn = np.random.rand()
    np.random.seed(1)
    env.reset()
    assert np.random.rand() == drawn


@pytest.mark.parametrize(
    ("image_size", "chunk_size", "state"), [(None, None, 80), (None, 4, 80), (32, 4, 8)]
)
def test_specs(make_env, request, image_size, chunk_size, state):
    if image_size is not None:
        request.getfixturevalue("pictures")
    env = make_env(image_size=image_size, wrist=image_size is not None, chunk_size=chunk_size)
    check_env_specs(env)
    seen = env.rollout(2)["next", "observation"]
    shapes = {key: tuple(value.shape[1:]) for key, value in seen.items()}
    picture = {} if image_size is None else {"image": (3, 32, 32), "wrist_image": (3, 32, 32)}
    assert shapes == {"state": (state,), **picture}


def test_training_and_test_episodes_start_elsewhere(make_env):
    starts = {}
    for split in ("train", "test"):
        env = make_env("put_the_bowl_on_the_plate", split=split)
        starts[split] = []
        for seed in range(20):
            start(env, seed)
            starts[split].append(env.simulator.start.copy())
    train, test = (np.stack(starts[split]) for split in ("train", "test"))
    official = libero_states("libero_goal", "put_the_bowl_on_the_plate")
    official = official[:, 1 : 1 + train.shape[1]]
    for other in (test, official):
        apart = np.abs(train[:, None, 9:] - other[None, :, 9:]).max(-1)
        assert apart.min() > 1e-4


def test_success_in_the_middle_of_a_chunk(make_env):
    env = make_env(chunk_size=5)
    start(env, 1)
    fulfil(env.simulator.raw)
    step = env.step(TensorDict({("vla_action", "chunk"): torch.zeros(5, 7)}))["next"]
    assert flags(step) == {"success", "done", "terminated"}
    assert step["executed"].tolist() == [True, False, False, False, False]
    assert step["reward"].item() == 1.0
    goal = step["observation", "state"][11:26]
    assert goal[:2].tolist() == [1.0, 1.0]
    assert goal[-1].item() == pytest.approx(1.0, abs=0.1)


def test_max_steps_cuts_a_chunk_and_the_horizon_ends_an_episode(make_env):
    env = make_env(chunk_size=4, max_steps=6)
    data = env.rollout(5)["next"]
    assert data["executed"].sum(-1).tolist() == [4, 2]
    assert data["truncated"].flatten().tolist() == [False, True]
    env.max_steps, env.horizon = None, 1
    assert flags(env.rollout(3)["next"][-1]) == {"done", "truncated"}


def test_one_environment_plays_several_tasks_with_a_bounded_number_of_simulators(make_env):
    env = make_env(kept=1)
    first = env.simulator
    env.set_task("put_the_bowl_on_the_plate")
    assert env.reset()["task_id"].item() == 8
    assert env.instruction == "put the bowl on the plate"
    assert env.simulator is not first
    assert not hasattr(first, "raw")
    env.set_task(None)
    names = {(start(env, seed), env.task.name)[1] for seed in (0, 0)}
    assert len(names) == 1
    env.set_instruction("do it")
    start(env, 0)
    assert env.instruction == "do it", "whatever task is drawn"


def test_a_crash_is_neither_failure_nor_termination(make_env, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log of unstable physics
    env = make_env()
    before = start(env, 4)

    def crash(action):
        raise SimulatorCrashedError

    with monkeypatch.context() as patch:
        patch.setattr(env.simulator, "step", crash)
        step = env.step(TensorDict({"action": torch.zeros(7)}))["next"]
    assert flags(step) == {"done", "truncated", "crashed"}
    env.simulator.data.qvel[:] = 1e12
    step = env.step(TensorDict({"action": torch.zeros(7)}))["next"]
    assert flags(step) == {"done", "truncated", "crashed"}
    assert (start(env, 4)["observation", "state"] == before["observation", "state"]).all()


def test_bad_actions(make_env):
    env = make_env(chunk_size=2)
    start(env, 8)
    where = "the action for task 'turn_on_the_stove', episode seed 8, decision 0"
    messages = {
        torch.ones(2, 6): (
            f"('vla_action', 'chunk'): {where} has the shape (2, 6), and the environment's action "
            "spec has (2, 7): give each decision as many actions, of as many numbers, as the spec "
            "has"
        ),
        torch.full((2, 7), float("nan")): f"('vla_action', 'chunk'): {where} is not finite",
    }
    for chunk, message in messages.items():
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            env.step(TensorDict({("vla_action", "chunk"): chunk}))


def test_an_official_state_is_refused_in_training(make_env):
    env = make_env(split="train", starts=OfficialStarts("libero_goal"))
    message = (
        "official initial state 7 of 'turn_on_the_stove' in libero_goal: it must not be trained "
        "on; draw new starts (starts=None)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        start(env, 7)


def test_the_state_needs_no_opengl():
    code = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "from rftf_torchrl import LiberoEnv\n"
        "env = LiberoEnv('turn_on_the_stove', suite='libero_goal', image_size=None)\n"
        "print(env.reset()['observation', 'state'].shape[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
        encoding="utf-8",
    )
    assert (done.stdout, done.returncode) == ("80\n", 0), done.stderr


def test_memory_stays_flat_over_two_hundred_resets():
    simulator = LiberoSimulator("libero_goal", "turn_on_the_stove", render=False)

    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    for seed in range(20):
        simulator.reset(seed)
    before = resident()
    for seed in range(180):
        simulator.reset(seed)
    grown = resident() - before
    simulator.close()
    assert grown < 20e6
