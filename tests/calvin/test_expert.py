"""The scripted expert: its first action in every task, and its pushes."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from _expert_views import an_info

from rftf_torchrl import CalvinExpert
from rftf_torchrl.calvin.expert.motions import OPEN
from rftf_torchrl.calvin.expert.servo import Servo, Target
from rftf_torchrl.calvin.tasks import TASKS


class StandIn(SimpleNamespace):
    """What the expert reads of a simulator, at rest."""

    def __init__(self):
        robot = np.zeros(15)
        robot[:7], robot[14] = [0.03, -0.23, 0.57, 3.1, 0.0, 1.5, 0.08], 1.0
        super().__init__(scene="D", robot_obs=robot, scene_obs=np.zeros(24), info=an_info())


class TestExpert:
    @pytest.mark.parametrize("task", TASKS)
    def test_every_task_begins_with_a_lawful_action(self, task):
        expert, simulator = CalvinExpert(), StandIn()
        expert.start(task, simulator)
        action = expert.action(simulator)
        assert action.shape == (7,)
        assert action.dtype == np.float64
        assert np.abs(action).max() <= 1.0
        assert action[6] in (-1.0, 1.0)

    def test_pushes_move_the_arm_only_and_follow_the_seed(self):
        meant = np.array([0.1, 0.0, -0.1, 0.0, 0.2, 0.0, -1.0])

        def executed(**arguments):
            expert = CalvinExpert(**arguments)
            return np.stack([expert.disturb(meant) for _ in range(2000)])

        pushed = executed(noise=0.2, seed=1)
        np.testing.assert_array_equal(pushed, executed(noise=0.2, seed=1))
        np.testing.assert_array_equal(executed(), np.tile(meant, (2000, 1)))
        assert np.abs(executed(noise=2.0)).max() == 1.0
        assert np.all(pushed[:, 6] == -1.0)
        offsets = (pushed - meant)[:, :6]
        away = np.any(offsets != 0, axis=1)
        starts = np.flatnonzero(np.diff(away.astype(int)) == 1) + 1
        assert 0.1 < away.mean() < 0.18  # 4 of 29 steps
        assert all(np.ptp(offsets[start : start + 4], axis=0).max() == 0 for start in starts[:-1])
        assert 0.15 < offsets[starts].std() < 0.25

    def test_the_servo_counts_a_push_as_moved(self):
        hand, euler = np.zeros(3), np.zeros(3)
        target = Target(np.array([0.02, 0.0, 0.0]), euler, OPEN)
        plain, told = Servo(), Servo()
        for servo in (plain, told):
            servo.action(target, hand, euler)
        told.also_moved(np.array([10.0, 0, 0, 0, 0, 0]))
        assert told.action(target, hand, euler)[0] < plain.action(target, hand, euler)[0]

    def test_unknown_task(self):
        expert, simulator = CalvinExpert(), StandIn()
        with pytest.raises(ValueError, match="unknown CALVIN task 'fly'"):
            expert.start("fly", simulator)

    def test_negative_noise(self):
        with pytest.raises(ValueError, match=re.escape("noise must not be negative, got -0.1")):
            CalvinExpert(noise=-0.1)

    def test_action_before_start(self):
        message = "call start(task, simulator) before action(simulator)"
        with pytest.raises(RuntimeError, match=re.escape(message)):
            CalvinExpert().action(StandIn())
