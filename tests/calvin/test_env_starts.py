"""Where CalvinEnv's episodes start: default states, one's own, and the benchmark's."""

from __future__ import annotations

import re

import numpy as np
import pytest
from _calvin_steps import start
from fake_calvin import TRACE, trace_start

from rftf_torchrl import default_states, initial_scene, initial_states


def test_episodes_start_at_default_training_states(make_fake_env):
    env = make_fake_env()
    start(env, 4)
    expected = default_states("train", "D")("close_drawer", 4)
    assert all(
        np.array_equal(*pair) for pair in zip(env.simulator.resets[0], expected, strict=True)
    )


class Bank:
    """Like a StateBank: an object with a method ``draw``."""

    draw = staticmethod(trace_start)


@pytest.mark.parametrize("states", [trace_start, Bank()])
def test_states_as_a_function_or_as_an_object_that_draws(make_fake_env, states):
    env = make_fake_env(states=states)
    env.reset()
    (reset,) = env.simulator.resets
    assert np.array_equal(reset[0], TRACE["robot_obs"][0])
    assert np.array_equal(reset[1], TRACE["scene_obs"][0])


def test_training_refuses_the_benchmarks_scenes_whoever_gives_them(make_fake_env):
    def cheating(task, seed):
        return initial_scene(initial_states()[7])

    with pytest.raises(ValueError, match="is the benchmark's initial scene 7: it must not be"):
        make_fake_env(states=cheating).reset()
    env = make_fake_env(states=cheating, split="test")
    env.reset()
    assert len(env.simulator.resets) == 1


@pytest.mark.parametrize("scene", ["A", "B", "C", "D"])
def test_training_and_test_starts_are_seeded_and_disjoint(scene):
    train = default_states("train", scene)
    drawn = [train("close_drawer", seed)[1] for seed in range(20)]
    assert np.array_equal(drawn[3], train("close_drawer", 3)[1])
    assert len(np.unique(drawn, axis=0)) == 20
    assert {vector[1] for vector in drawn} == {0.22}
    if scene == "D":
        test = [default_states("test")("close_drawer", seed)[1] for seed in range(20)]
        assert {vector[1] for vector in test} == {0.22}
        assert min(np.abs(a - b).max() for a in drawn for b in test) > 1e-6


def test_starts_that_can_not_be():
    message = (
        "no chain starts with 'stack_block', as it needs a block in the hand, on another one or in "
        "the drawer: give states=, a StateBank, which has states from the middle of chains"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        default_states("train")("stack_block", 0)
    message = (
        "the benchmark's initial scenes are right for scene D only, not for A: give states=, or "
        "use split='train'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        default_states("test", "A")
    with pytest.raises(ValueError, match=r"^split must be 'train' or 'test', got 'all'$"):
        default_states("all")


def test_successive_resets_go_through_the_seeds_sequence(make_fake_env):
    env = make_fake_env(seed=3)
    seeds = [env.reset()["episode_seed"].item() for _ in range(3)]
    env.set_seed(3)
    assert [env.reset()["episode_seed"].item() for _ in range(3)] == seeds
    assert len(set(seeds)) == 3
    assert make_fake_env(seed=4).reset()["episode_seed"].item() != seeds[0]
