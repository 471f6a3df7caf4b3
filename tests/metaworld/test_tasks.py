"""All fifty tasks: distinct words, and resets that only their seed decides."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rftf_torchrl import SAME_SCENE, HashTokenizer
from rftf_torchrl.metaworld.simulator import MetaWorldSimulator
from rftf_torchrl.metaworld.tasks import TASKS, get_task

pytestmark = pytest.mark.slow


def test_fifty_numbered_tasks():
    assert len(TASKS) == 50
    assert [task.id for task in TASKS.values()] == list(range(50))
    assert [task.name for task in TASKS.values()] == sorted(TASKS)
    assert all(get_task(name).name == name for pair in SAME_SCENE for name in pair)


def test_no_two_tasks_sound_or_encode_alike():
    sentences = [task.instruction for task in TASKS.values()]
    tokens, mask = HashTokenizer()(sentences)
    assert len(set(sentences)) == 50
    assert len({tuple(row) for row in tokens.tolist()}) == 50
    assert mask.sum(1).tolist() == [len(sentence.split()) for sentence in sentences]


def test_unknown_task():
    message = f"unknown Meta-World task 'fly'; choose from {', '.join(TASKS)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        get_task("fly")


@pytest.mark.slow
@pytest.mark.metaworld
def test_every_task_resets_to_a_settled_state_that_its_seed_decides():
    """Settled: nothing moves when positions are computed again, so the first image is true."""
    import mujoco

    moved, forgetful, seedless = [], [], []
    for task in TASKS.values():
        simulator = MetaWorldSimulator(task, "train", render=False)
        starts = []
        for seed in (1, 2, 1):
            simulator.reset(seed)
            starts.append(np.concatenate([simulator.state, simulator.data.qpos]))
        where = simulator.data.xpos.copy(), simulator.data.site_xpos.copy()
        mujoco.mj_forward(simulator.model, simulator.data)
        again = simulator.data.xpos, simulator.data.site_xpos
        if any(np.abs(a - b).max() > 1e-6 for a, b in zip(where, again, strict=True)):
            moved.append(task.name)
        if not np.array_equal(starts[0], starts[2]):
            forgetful.append(task.name)
        if np.array_equal(starts[0], starts[1]):
            seedless.append(task.name)
    assert (moved, forgetful, seedless) == ([], [], [])


@pytest.mark.metaworld
@pytest.mark.parametrize("name", ["drawer-open", "handle-press", "dial-turn", "peg-unplug-side"])
def test_a_reset_is_meta_worlds_own_with_the_drawn_vector(name):
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

    from rftf_torchrl import GoalSampler

    task = get_task(name)
    simulator = MetaWorldSimulator(task, "test", render=False)
    simulator.reset(7)
    stock = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-v3-goal-observable"](seed=0)
    sampler = GoalSampler(stock._random_reset_space.low, stock._random_reset_space.high, "test")
    sampler.reseed(task.id, 7)
    stock._freeze_rand_vec, stock._last_rand_vec = True, sampler.draw()
    stock.reset()
    assert np.array_equal(simulator.data.qpos, stock.data.qpos)
    assert np.array_equal(simulator.model.body_pos, stock.model.body_pos)
    assert np.array_equal(simulator.state[-3:], stock._target_pos)
