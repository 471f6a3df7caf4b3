"""LIBERO's scripted expert solves tasks from freshly drawn states, the same way each time."""

from __future__ import annotations

import numpy as np
import pytest

from rftf_torchrl.libero.expert.expert import start_expert
from rftf_torchrl.libero.simulator import LiberoSimulator

pytestmark = [pytest.mark.libero, pytest.mark.slow]

TASK = "pick_up_the_cream_cheese_and_place_it_in_the_basket"


@pytest.fixture(scope="module")
def simulator():
    made = LiberoSimulator("libero_object", TASK, render=False)
    yield made
    made.close()


def play(simulator, seed, limit=280):
    """The actions of an episode, and whether it was solved."""
    simulator.reset(seed)
    act, actions = start_expert(simulator.raw), []
    for _ in range(limit):
        actions.append(act())
        if simulator.step(actions[-1]):
            return np.stack(actions), True
    return np.stack(actions), False


@pytest.mark.parametrize("seed", [0, 2])
def test_a_task_is_solved_by_valid_actions(simulator, seed):
    actions, solved = play(simulator, seed)
    assert solved
    assert np.abs(actions).max() <= 1.0
    assert set(actions[:, -1]) == {-1.0, 1.0}


def test_an_episode_repeats_to_the_bit(simulator):
    first, _ = play(simulator, 4)
    play(simulator, 6, limit=30)
    second, _ = play(simulator, 4)
    assert np.array_equal(first, second)


def test_what_fell_is_picked_up_again(simulator):
    simulator.reset(0)
    act = start_expert(simulator.raw)
    for _ in range(280):
        action = act()
        if simulator.raw.sim.data.body_xpos[simulator.raw.obj_body_id["cream_cheese_1"]][2] > 0.1:
            break
        simulator.step(action)
    for _ in range(12):
        simulator.step(np.array([0.0] * 6 + [-1.0]))  # the gripper opens
        act()
    assert any(simulator.step(act()) for _ in range(280))
