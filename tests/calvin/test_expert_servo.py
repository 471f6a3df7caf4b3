"""The servo that takes the expert's hand to a target."""

from __future__ import annotations

import numpy as np
import pytest

from rftf_torchrl.calvin.expert.servo import Servo, Target, tool, wrap


class TestServo:
    def drive(self, servo, target, steps, follow=0.5):
        """A hand that goes a share of the way to the stored target at each step."""
        pose = np.concatenate([np.zeros(3), tool(1.5)])
        stored, actions = pose.copy(), []
        for _ in range(steps):
            action = servo.action(target, pose[:3], pose[3:])
            stored = stored + action[:6] * [0.02, 0.02, 0.02, 0.05, 0.05, 0.05]
            pose = pose + follow * (stored - pose)
            actions.append(action)
        return pose, stored, np.array(actions)

    def test_arrives_without_overshoot_and_within_the_action_box(self):
        target = Target(np.array([0.2, -0.1, 0.05]), tool(1.8), 1.0)
        pose, _, actions = self.drive(Servo(leak=0.0), target, 60)
        np.testing.assert_allclose(pose[:3], target.position, atol=1e-4)
        np.testing.assert_allclose(wrap(pose[3:] - target.euler), 0, atol=1e-3)
        assert np.abs(actions).max() <= 1.0

    def test_a_long_way_is_straight(self):
        target = Target(np.array([0.4, -0.2, 0.1]), tool(1.5), 1.0)
        action = Servo().action(target, np.zeros(3), tool(1.5))
        np.testing.assert_allclose(action[:3], [1.0, -0.5, 0.25])

    def test_a_blocked_hand_does_not_wind_up(self):
        target = Target(np.array([0.4, 0.0, 0.0]), tool(1.5), -1.0)
        _, stored, _ = self.drive(Servo(slack=2.5, leak=0.0), target, 200, follow=0.0)
        assert stored[0] == pytest.approx(2.5 * 0.02)

    def test_angles_take_the_short_way(self):
        euler = np.array([-3.1, 0.0, 1.5])
        action = Servo().action(Target(np.zeros(3), tool(1.5), 1.0), np.zeros(3), euler)
        assert -1 < action[3] < 0

    def test_a_hand_that_was_reset_elsewhere_starts_anew(self):
        target = Target(np.array([0.4, 0.0, 0.0]), tool(1.5), 1.0)
        servo, fresh = Servo(), Servo()
        for _ in range(20):
            servo.action(target, np.zeros(3), tool(1.5))
        elsewhere = np.array([0.0, 0.3, 0.2])
        np.testing.assert_array_equal(
            servo.action(target, elsewhere, tool(1.5)), fresh.action(target, elsewhere, tool(1.5))
        )

    @pytest.mark.parametrize(("command", "expected"), [(1.0, 1.0), (-1.0, -1.0), (0.3, 1.0)])
    def test_the_gripper_is_one_of_two_numbers(self, command, expected):
        action = Servo().action(Target(np.zeros(3), tool(1.5), command), np.zeros(3), tool(1.5))
        assert action[6] == expected
