"""The benchmark's initial scenes against CALVIN's own, and fresh scenes for training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rftf_torchrl import (
    BLOCK_ORDER,
    benchmark_scene,
    benchmark_sequences,
    initial_scene,
    initial_states,
    refuse_test_state,
    training_scene,
)
from rftf_torchrl.calvin import scenes

OFFICIAL = np.load(Path(__file__).parent / "initial_scene_obs_first200.npy")
STATES = initial_states()
UNEVEN = next(
    state
    for state in STATES
    if (state.red_block, state.blue_block, state.pink_block, state.slider)
    == ("table", "slider_left", "slider_right", "left")
)


def poses(scene_obs, scene):
    return dict(zip(BLOCK_ORDER[scene], scene_obs[6:].reshape(3, 6), strict=True))


def test_the_first_200_scenes_are_the_official_ones():
    ours = [initial_scene(chain.initial_state)[1] for chain in benchmark_sequences(200)]
    np.testing.assert_array_equal(np.stack(ours), OFFICIAL)


def test_robot_starts_open_and_the_same_everywhere():
    first, last = initial_scene(STATES[0])[0], initial_scene(STATES[-1])[0]
    np.testing.assert_array_equal(first, last)
    assert first.shape == (15,)
    assert first[:3].tolist() == [0.02586889, -0.2313129, 0.5712808]
    assert first[14] == 1.0


def test_furniture_follows_the_state():
    state = replace(UNEVEN, drawer="open", lightbulb=1, led=0)
    assert initial_scene(state)[1][:6].tolist() == [0.28, 0.22, 0.0, 0.088, 1.0, 0.0]
    assert training_scene(state, 0, "B")[1][:6].tolist() == [0.304, 0.22, 0.0, 0.088, 1.0, 0.0]
    assert training_scene(state, 0, "C")[1][0] == 0.24


def test_scenes_leave_numpys_global_state_alone():
    np.random.seed(3)
    expected = np.random.RandomState(3).rand(2)
    first = np.random.rand()
    initial_scene(STATES[0])
    training_scene(STATES[0], 0)
    assert [first, np.random.rand()] == list(expected)


@pytest.mark.parametrize("scene", "ABCD")
@pytest.mark.parametrize("seed", range(5))
def test_training_scenes_put_blocks_where_the_state_says(scene, seed):
    blocks = poses(training_scene(UNEVEN, seed, scene)[1], scene)
    middle = 0.08 if scene in "BC" else -0.1
    assert -0.14 <= blocks["red"][1] <= -0.10
    assert -0.17 < blocks["blue"][0] - middle < -0.11
    assert 0.14 < blocks["pink"][0] - middle < 0.20
    for block in ("blue", "pink"):
        assert 0.08 < blocks[block][1] < 0.11


@pytest.mark.parametrize("scene", "ABCD")
def test_blocks_on_the_table_keep_their_distance(scene):
    state = next(s for s in STATES if s.red_block == s.blue_block == "table")
    for seed in range(20):
        blocks = poses(training_scene(state, seed, scene)[1], scene)
        assert abs(blocks["red"][0] - blocks["blue"][0]) >= 0.14


def test_yaws_are_distributed_as_in_the_benchmark():
    yaws = np.stack([training_scene(UNEVEN, seed)[1][6:].reshape(3, 6)[:, 5] for seed in range(50)])
    assert yaws.min() > np.pi / 2 - np.pi / 8
    assert yaws.max() < np.pi / 2 + np.pi / 8
    assert yaws.std() > 0.2


def test_training_scenes_depend_on_seed_state_and_scene_alone():
    first = training_scene(STATES[5], 1)[1]
    np.testing.assert_array_equal(first, training_scene(STATES[5], 1)[1])
    others = [
        training_scene(STATES[5], 2)[1],
        training_scene(STATES[7], 1)[1],
        training_scene(STATES[5], 1, "A")[1],
    ]
    assert all((first[6:] != other[6:]).any() for other in others)


def moved(vector, *, position=0.0, yaw=0.0, tilt=0.0):
    vector = vector.copy()
    vector[[0, 1, 3]] += position
    poses = vector[6:].reshape(3, 6)
    poses[:, :3] += position
    poses[:, 3:5] += tilt
    poses[:, 5] += yaw
    return vector


def test_every_test_state_is_refused_and_no_training_state_is():
    for number, state in enumerate(STATES):
        vector = initial_scene(state)[1]
        fresh = training_scene(state, 0)[1]
        message = rf"scene_obs\[1\] is the benchmark's initial scene {number}: it must not be"
        with pytest.raises(ValueError, match=message):
            refuse_test_state(np.stack([fresh, vector]))
        refuse_test_state(fresh)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"position": 0.009, "yaw": -0.019, "tilt": 0.1}, True),
        ({"position": -0.009, "yaw": 0.019, "tilt": -0.1}, True),
        ({"position": 0.011}, False),
        ({"yaw": 0.021}, False),
    ],
)
def test_test_states_are_known_up_to_a_tolerance(change, same):
    for number in range(0, 192, 7):
        vector = moved(initial_scene(STATES[number])[1], **change)
        assert benchmark_scene(vector) == (number if same else None)


@pytest.mark.parametrize("index", [0, 1, 3, 4, 5, 6, 13, 20, 11, 17, 23])
def test_all_of_the_furniture_and_the_blocks_is_compared(index):
    vector = initial_scene(STATES[5])[1]
    vector[index] += 0.05
    assert benchmark_scene(vector) is None


def test_a_fresh_scene_that_turns_out_a_test_scene_is_drawn_again(monkeypatch):
    expected = training_scene(STATES[5], 1)[1]
    drawn = [initial_scene(STATES[5])[1], moved(initial_scene(STATES[9])[1], yaw=0.01)]
    draw = scenes._fresh_scene
    monkeypatch.setattr(scenes, "_fresh_scene", lambda *a: drawn.pop() if drawn else draw(*a))
    np.testing.assert_array_equal(training_scene(STATES[5], 1)[1], expected)
    assert drawn == []


@pytest.mark.parametrize("shape", [(23,), (2, 3, 24), ()])
def test_refusing_needs_scene_vectors(shape):
    with pytest.raises(ValueError, match=r"scene_obs must have shape \(24,\) or \(N, 24\), got"):
        refuse_test_state(np.zeros(shape))


def test_unknown_scene():
    with pytest.raises(ValueError, match="scene must be 'A', 'B', 'C' or 'D', got 'E'"):
        training_scene(STATES[0], 0, "E")


def test_negative_seed():
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        training_scene(STATES[0], -1)


def test_a_state_that_is_none_of_the_192():
    held = replace(STATES[0], red_block="drawer")
    message = r"^the state with led=.* red_block='drawer'.* none of the 192"
    with pytest.raises(ValueError, match=message):
        training_scene(held, 0)
    with pytest.raises(ValueError, match=message):
        initial_scene(held)


@pytest.mark.calvin
def test_test_scenes_are_refused_as_read_back_from_the_simulator(requires_calvin):
    from rftf_torchrl import CalvinSimulator

    simulator = CalvinSimulator("D")
    try:
        for number in range(0, 192, 16):
            simulator.reset(*initial_scene(STATES[number]))
            for _ in range(2):
                assert benchmark_scene(simulator.scene_obs) == number
                simulator.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
            simulator.reset(*training_scene(STATES[number], number))
            refuse_test_state(simulator.scene_obs)
    finally:
        simulator.close()


@pytest.mark.calvin
@pytest.mark.parametrize("scene", "ABCD")
def test_training_scenes_rest(scene, requires_calvin):
    from rftf_torchrl import CalvinSimulator

    simulator = CalvinSimulator(scene)
    try:
        assert simulator.blocks == BLOCK_ORDER[scene]
        for number in range(0, 192, 24):
            robot_obs, scene_obs = training_scene(STATES[number], number, scene)
            simulator.reset(robot_obs, scene_obs)
            for _ in range(15):
                simulator.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
            np.testing.assert_allclose(simulator.scene_obs[:6], scene_obs[:6], atol=2e-3)
            positions = poses(scene_obs, scene)
            for block, position in simulator.block_positions().items():
                np.testing.assert_allclose(position, positions[block][:3], atol=5e-3)
    finally:
        simulator.close()
