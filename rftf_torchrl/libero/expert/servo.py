"""From where the hand should be to one of LIBERO's actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

OPEN, CLOSED = -1.0, 1.0
_REACH, _TURN = 0.05, 0.5  # what 1 stands for: metres, radians
_GAIN = 2.0
_BOTH_REACHABLE = 1 + 2 * np.cos(np.radians(110))


@dataclass(frozen=True)
class Target:
    """Where the hand should be.

    Attributes:
        position: of the place between the fingertips [3], metres.
        rotation: its columns are the axis along which the fingers open, the axis across, and the
            direction in which they point [3, 3].
        gripper: -1 opens, 1 closes.
        speed: at most this part of the fastest movement.
    """

    position: np.ndarray
    rotation: np.ndarray
    gripper: float
    speed: float = 1.0


def pointing(direction: np.ndarray, fingers: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] of a hand that points somewhere, with its fingers opening along an axis.

    Args:
        direction: in which the fingers point [3].
        fingers: about along which axis they open [3]; made orthogonal to ``direction``.

    Example:
        >>> pointing(np.array([0, 0, -1]), np.array([0, 1, 0])).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]
    """
    z = direction / np.linalg.norm(direction)
    x = fingers - (fingers @ z) * z
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1) + 0.0


def downward(yaw: float) -> np.ndarray:
    """The rotation [3, 3] of a hand that points down, its fingers opening along ``yaw``."""
    return pointing(np.array([0.0, 0.0, -1.0]), np.array([np.cos(yaw), np.sin(yaw), 0.0]))


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """The axis times the angle [3] of a rotation matrix [3, 3].

    Example:
        >>> rotation_vector(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])).round(3).tolist()
        [0.0, 0.0, 1.571]
    """
    twice_sine = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = float(np.linalg.norm(twice_sine)) / 2
    angle = np.arctan2(sine, (np.trace(rotation) - 1) / 2)
    vector: np.ndarray = twice_sine * (angle / (2 * sine) if sine > 1e-9 else 0.5)
    return vector


def nearest(home: np.ndarray, here: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """A rotation of the hand, or the same with the fingers exchanged: that nearer to ``home``.

    A hand turned by half a turn about where it points holds the same way, but a hand that always
    went the shorter way round would wind up its last joint. Where neither is far from ``home``, it
    is the one nearer to ``here``, so that a hand does not turn round while it holds something.
    """
    ways = wanted, wanted * np.array([-1.0, -1.0, 1.0])
    close = min(_alike(home, way) for way in ways) > _BOTH_REACHABLE
    return max(ways, key=lambda way: _alike(here if close else home, way))


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    """1 + 2 cos of the angle between two rotations."""
    return float((first * second).sum())


def servo(position: np.ndarray, rotation: np.ndarray, target: Target) -> np.ndarray:
    """The action [7] in [-1, 1] towards a target, proportional to what is left.

    Args:
        position: of the hand now [3].
        rotation: of the hand now [3, 3].
        target: where it should be.
    """
    move = _GAIN * (target.position - position) / _REACH
    move *= min(1.0, target.speed / max(np.abs(move).max(), 1e-9))
    swing = _GAIN * rotation_vector(target.rotation @ rotation.T) / _TURN
    swing /= max(1.0, np.abs(swing).max())
    return np.concatenate([move, swing, [target.gripper]])
