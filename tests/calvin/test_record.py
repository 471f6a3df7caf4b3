"""Recorded chains of the expert: what is kept, and that it does not depend on who records."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule

from rftf_torchrl import (
    Chain,
    ChainToRecord,
    RecordedChain,
    Takeover,
    derive_seed,
    keys,
    record_chain,
    record_chains,
    starting_states,
    training_scene,
)
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost

PRESS = Chain(starting_states("turn_off_led")[3], ("turn_off_led", "turn_on_led"))
PULL = Chain(starting_states("open_drawer")[5], ("open_drawer",))
JOB = ChainToRecord(PRESS, 7, image_size=16, wrist_size=8)


def same(first, second):
    """Whether two recorded chains are equal, bit by bit."""
    return (first.steps, len(first.tasks)) == (second.steps, len(second.tasks)) and all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name))
        for a, b in zip(first.tasks, second.tasks, strict=True)
        for field in fields(a)
    )


def test_a_simulator_of_another_scene_is_refused():
    message = "the chain is for scene D, the simulator is A"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        record_chain(SimpleNamespace(scene="A"), JOB)


@pytest.fixture(scope="module")
def simulator(requires_calvin):
    from rftf_torchrl import CalvinSimulator

    simulator = CalvinSimulator("D")
    yield simulator
    simulator.close()


@pytest.fixture(scope="module")
def recorded(simulator):
    return record_chain(simulator, JOB).tasks


@pytest.mark.calvin
def test_there_is_one_frame_more_than_actions(recorded):
    assert [(task.task, task.depth, task.scene) for task in recorded] == [
        ("turn_off_led", 0, "D"),
        ("turn_on_led", 1, "D"),
    ]
    for task in recorded:
        steps = len(task.actions)
        assert task.actions.shape == (steps, 7)
        assert task.robot_obs.shape == (steps + 1, 15)
        assert task.scene_obs.shape == (steps + 1, 24)
        assert task.pictures.shape == (steps + 1, 3, 16, 16)
        assert task.wrist_pictures.shape == (steps + 1, 3, 8, 8)


@pytest.mark.calvin
def test_frames_and_pictures_are_those_of_stepping(simulator, recorded):
    simulator.reset(*training_scene(PRESS.initial_state, JOB.seed))
    for task in recorded:
        start = simulator.info
        for step, action in enumerate(task.actions):
            np.testing.assert_array_equal(simulator.robot_obs, task.robot_obs[step])
            np.testing.assert_array_equal(simulator.scene_obs, task.scene_obs[step])
            assert not simulator.achieved(start, [task.task])
            simulator.step(action)
        np.testing.assert_array_equal(simulator.robot_obs, task.robot_obs[-1])
        np.testing.assert_array_equal(simulator.picture(16), task.pictures[-1])
        np.testing.assert_array_equal(simulator.wrist_picture(8), task.wrist_pictures[-1])
        assert simulator.achieved(start, [task.task]) == {task.task}


@pytest.mark.calvin
def test_a_task_that_fails_is_left_out(simulator, recorded):
    needed = len(recorded[0].actions)
    blind = replace(JOB, image_size=None, wrist_size=None)
    failed = record_chain(simulator, replace(blind, max_steps=needed - 1))
    assert failed == RecordedChain([], needed - 1)
    twice = Chain(PRESS.initial_state, ("turn_off_led", "turn_off_led"))
    chain = record_chain(simulator, replace(blind, chain=twice, max_steps=needed))
    (kept,) = chain.tasks
    assert chain.steps == 2 * needed
    assert kept.pictures is None
    np.testing.assert_array_equal(kept.scene_obs, recorded[0].scene_obs)


@pytest.mark.calvin
def test_the_number_of_processes_changes_nothing():
    jobs = [
        ChainToRecord(PRESS, 7, noise=0.1),
        ChainToRecord(PULL, 8, noise=0.1),
        ChainToRecord(PULL, 8, scene="B"),
    ]
    here = list(record_chains(jobs, workers=0))
    apart = list(record_chains(jobs, workers=2))
    assert [len(chain.tasks) for chain in here] == [2, 1, 1]
    assert all(same(*pair) for pair in zip(here, apart, strict=True))


@pytest.mark.calvin
def test_a_policy_may_begin_with_more_steps_than_a_subtask_has(monkeypatch):
    monkeypatch.setattr("rftf_torchrl.calvin.env.SUBTASK_STEPS", 4)
    policy = TensorDictModule(
        lambda state: torch.zeros(len(state), 2, 7), [keys.STATE], [keys.CHUNK]
    )
    takeover, task = Takeover(policy, chunk_size=2, most=5), len(PULL.tasks) - 1
    seed = next(n for n in range(99) if takeover.decisions(derive_seed(n, "takeover", task)) == 5)
    before, used = torch.get_num_threads(), set()
    policy.register_forward_hook(lambda *_: used.add(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        (chain,) = record_chains([ChainToRecord(PULL, seed)], workers=0, takeover=takeover)
    finally:
        torch.set_num_threads(before)
    (pulled,) = chain.tasks
    assert (pulled.takeover, chain.steps) == (5, 10 + len(pulled.actions))
    assert used == {1}, "as in a worker process: last bits depend on it"


@pytest.mark.calvin
def test_a_policys_noise_comes_from_the_seed_of_the_chain():
    policy = TensorDictModule(
        lambda state: torch.randn(len(state), 2, 7), [keys.STATE], [keys.CHUNK]
    )
    takeover, task = Takeover(policy, chunk_size=2, most=5), len(PULL.tasks) - 1
    seeds = [n for n in range(99) if takeover.decisions(derive_seed(n, "takeover", task)) == 5]
    first, second = (ChainToRecord(PULL, seed) for seed in seeds[:2])
    _, after = record_chains([first, second], workers=0, takeover=takeover)
    (alone,) = record_chains([second], workers=0, takeover=takeover)
    assert len(alone.tasks) == 1
    assert same(after, alone)


def test_a_chain_that_is_lost_twice_is_left_out(monkeypatch, caplog):
    whole = RecordedChain([], 5)

    def play(pool, jobs, attempts):
        yield 1, whole
        yield 0, Lost("died with exit code -11")

    monkeypatch.setattr(GuardedPool, "play", play)
    assert list(record_chains([JOB, JOB], workers=2)) == [RecordedChain([], 0), whole]
    assert caplog.messages == [
        "chain 0 of 2, of seed 7 in scene D, is left out: 2 processes were lost with it, the last "
        "one died with exit code -11"
    ]


def test_chains_come_in_order(monkeypatch):
    monkeypatch.setattr(GuardedPool, "play", lambda *_: iter([(1, ["b"]), (2, ["c"]), (0, ["a"])]))
    assert list(record_chains([JOB] * 3, workers=2)) == [["a"], ["b"], ["c"]]
