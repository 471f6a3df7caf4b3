"""From where the hand should be to a relative action, without winding up when it is blocked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

STEP = np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05])
"""What one unit of an action moves the stored target: metres and radians."""

_JUMP = 5.0


def wrap(angle: np.ndarray) -> np.ndarray:
    """The same angles between -pi and pi."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def tool(yaw: float, tilt: float = 0.0) -> np.ndarray:
    """Euler angles [3] of a hand that points down, its fingers opening across the yaw direction.

    Args:
        yaw: about the vertical; at pi/2 the fingers open along x.
        tilt: how far the fingertips are turned towards the yaw direction.
    """
    return np.array([np.pi, -tilt, yaw])


@dataclass(frozen=True)
class Target:
    """Where the hand should be: position [3], Euler angles [3], gripper 1 or -1."""

    position: np.ndarray
    euler: np.ndarray
    gripper: float


@dataclass
class Servo:
    """A proportional controller on the measured hand, with bounded accumulation.

    a = clip(gain (target - hand) / step). The simulator adds actions to a stored target; the
    sum of the actions is kept within ``slack`` of the measured hand, so that a blocked hand
    presses with a bounded force and comes back at once. A hand that jumped was reset: the sum
    begins again.

    Args:
        gain: share of the remaining way that is commanded at each step.
        slack: how far the stored target may get away from the hand, in steps of an action.
        leak: share of that distance that is forgotten at each step, so that a stored target that
            was elsewhere from the start, behind an obstacle say, is overcome in the end.
    """

    gain: float = 0.5
    slack: float = 2.5
    leak: float = 0.04
    _ahead: np.ndarray | None = field(default=None, repr=False)
    _before: np.ndarray | None = field(default=None, repr=False)

    @staticmethod
    def _steps(wanted: np.ndarray, pose: np.ndarray) -> np.ndarray:
        error = wanted - pose
        error[3:] = wrap(error[3:])
        steps: np.ndarray = error / STEP
        return steps

    def action(self, target: Target, hand: np.ndarray, euler: np.ndarray) -> np.ndarray:
        """The action [7] towards ``target`` from the measured pose of the hand."""
        pose = np.concatenate([hand, euler])
        wanted = np.concatenate([target.position, target.euler])
        error = self._steps(wanted, pose)
        moved = np.zeros(6) if self._before is None else self._steps(pose, self._before)
        if self._ahead is None or np.abs(moved).max() > _JUMP:
            self._ahead = np.zeros(6)
        else:
            self._ahead = (1.0 - self.leak) * (self._ahead - moved)
        move = self.gain * error
        move[:3] /= max(1.0, np.abs(move[:3]).max())
        move[3:] /= max(1.0, np.abs(move[3:]).max())
        move = np.clip(np.clip(self._ahead + move, -self.slack, self.slack) - self._ahead, -1, 1)
        self._ahead = self._ahead + move
        self._before = pose
        return np.concatenate([move, [1.0 if target.gripper > 0 else -1.0]])

    def also_moved(self, more: np.ndarray) -> None:
        """Count what was executed [6] besides the last action."""
        if self._ahead is not None:
            self._ahead = self._ahead + more
