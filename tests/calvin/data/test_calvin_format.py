import math
import re

import numpy as np
import pytest

from rftf_torchrl import absolute_action, hashed_embedding, relative_action
from rftf_torchrl.calvin.data.format import scene_name, split_folder, still_actions


def test_an_action_is_scaled_and_clipped():
    robot, target = np.zeros(15), np.zeros(7)
    target[:] = [0.01, -0.02, 5.0, 0.025, -0.05, -2.0, -1]
    assert relative_action(robot, target) == pytest.approx([0.5, -1, 1, 0.5, -1, -1, -1])


def test_a_turn_across_pi_is_short():
    robot, target = np.zeros(15), np.zeros(7)
    robot[3], target[3] = math.pi - 0.01, -math.pi + 0.01
    assert relative_action(robot, target)[3] == pytest.approx(0.4)
    robot[3], target[3] = target[3], robot[3]
    assert relative_action(robot, target)[3] == pytest.approx(-0.4)


def test_actions_of_many_frames_at_once():
    robots = np.random.default_rng(0).normal(size=(4, 5, 15))
    many = relative_action(robots, absolute_action(robots[::-1]))
    assert many.shape == (4, 5, 7)
    assert np.array_equal(many[1, 2], relative_action(robots[1, 2], absolute_action(robots[2, 2])))


def test_staying_is_a_zero_move():
    robot = np.linspace(0, 1, 15)
    for gripper, expected in ((1, 1), (-1, -1), (0, -1)):
        robot[14] = gripper
        relative, absolute = still_actions(robot)
        assert relative.tolist() == [0] * 6 + [expected]
        assert np.array_equal(relative, relative_action(robot, absolute))


def test_embeddings_tell_sentences_apart():
    one, two = hashed_embedding("lift the red block"), hashed_embedding("lift the blue block")
    assert (one.shape, one.dtype) == ((384,), np.float32)
    assert np.linalg.norm(one) == pytest.approx(1)
    assert 0.5 < one @ two < 0.95
    assert not hashed_embedding("").any()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=re.escape("scene is 'E', expected one of ['A', 'B', ")):
        scene_name("E")
    message = "split is 'test', expected one of ['training', 'validation']."
    with pytest.raises(ValueError, match=re.escape(message)):
        split_folder("root", "test")
