"""The policy's state vector: numbers by hand, blocks in one order, any leading shape."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rftf_torchrl import BLOCK_ORDER, state_vector

ROBOT = np.array([0.1, 0.2, 0.5, np.pi, 0.0, np.pi / 2, 0.08, 11, 12, 13, 14, 15, 16, 17, -1.0])
FURNITURE = [0.28, 0.22, 0.01, 0.088, 1.0, 0.0]
BLOCKS = {
    "red": [0.3, 0.0, 0.4, 0.0, 0.0, np.pi / 2],
    "blue": [0.1, 0.2, 0.6, 0.0, np.pi / 2, 0.0],
    "pink": [-0.1, 0.1, 0.5, np.pi, 0.0, 0.0],
}


def scene_obs(scene):
    return np.array(FURNITURE + [x for colour in BLOCK_ORDER[scene] for x in BLOCKS[colour]])


def test_proprioception_by_hand():
    expected = [0.1, 0.2, 0.5, 0, 0, 1, -1, 1, 0, 0.08, -1]
    state = state_vector(ROBOT)
    assert state.dtype == np.float32
    assert np.allclose(state, expected, atol=1e-7)


@pytest.mark.parametrize("scene", ["A", "B", "C", "D"])
def test_privileged_state_by_hand_is_the_same_whatever_the_scenes_order(scene):
    expected = [
        *state_vector(ROBOT),
        *FURNITURE,
        *[0.3, 0.0, 0.4, 0.1, 0.2, 0.6, -0.1, 0.1, 0.5],
        *[0, 0, 1, 0, 1, 0, 0, 0, 0],
        *[1, 1, 0, 1, 0, 1, -1, 1, 1],
        *[0.2, -0.2, -0.1, 0.0, 0.0, 0.1, -0.2, -0.1, 0.0],
    ]
    assert np.allclose(state_vector(ROBOT, scene_obs(scene), scene, True), expected, atol=1e-7)


def test_angles_that_wrap_do_not_jump():
    other = ROBOT.copy()
    other[3] = -np.pi + 1e-9
    assert np.abs(state_vector(ROBOT) - state_vector(other)).max() < 1e-6


def test_any_leading_shape():
    rng = np.random.default_rng(0)
    robots, scenes = rng.normal(size=(2, 3, 15)), rng.normal(size=(2, 3, 24))
    together = state_vector(robots, scenes, "C", True)
    assert together.shape == (2, 3, 53)
    one_by_one = [
        [state_vector(robots[i, j], scenes[i, j], "C", True) for j in range(3)] for i in range(2)
    ]
    assert np.array_equal(together, one_by_one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(14),), "robot_obs must have the shape [..., 15], got (14,)"),
        ((np.float64(0),), "robot_obs must have the shape [..., 15], got ()"),
        (
            (np.zeros(15), np.zeros(23), "D", True),
            "scene_obs must have the shape [..., 24], got (23,)",
        ),
        (
            (np.zeros(15), None, "D", True),
            "scene_obs [..., 24] is needed for the privileged state",
        ),
        (
            (np.zeros((2, 15)), np.zeros((3, 24)), "D", True),
            "robot_obs (2, 15) and scene_obs (3, 24) must have the same leading shape",
        ),
        (
            (np.zeros(15), np.zeros(24), "E", True),
            "scene must be 'A', 'B', 'C' or 'D', got 'E'",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        state_vector(*arguments)
