"""Opening and closing drawers and doors, and turning knobs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rftf_torchrl.libero.expert.motions import Skill, by, close, grip, move, travel
from rftf_torchrl.libero.expert.scene import Scene
from rftf_torchrl.libero.expert.servo import CLOSED, OPEN, downward, pointing

_UP = by(0, 0, 1)
_HANDLE = 0.018  # how thick a handle is
_BEFORE, _PAST = 0.07, 0.04
_PULL_TILT, _PUSH_TILT = 0.3, 0.8
_KNOB_DEPTH = 0.016
_KNOB_TURN = 1.2


def handle(points: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """The middle [3] of what stands out furthest of a part.

    Args:
        points: on the part [n, 3].
        outward: the way [3].

    Example:
        >>> face = np.array([[x, 0.0, z] for x in (-0.1, 0.1) for z in (0.0, 0.1)])
        >>> bar = np.array([[x, 0.03, 0.05] for x in (-0.04, 0.04)])
        >>> handle(np.concatenate([face, bar]), np.array([0.0, 1.0, 0.0])).tolist()
        [0.0, 0.03, 0.05]
    """
    height = points @ outward
    outermost = points[height > height.max() - _HANDLE]
    middle: np.ndarray = (outermost.min(0) + outermost.max(0)) / 2
    return middle


def tilted(inward: np.ndarray, tilt: float, fingers: np.ndarray) -> np.ndarray:
    """The rotation of a hand that points inward, ``tilt`` radians below the horizontal."""
    return pointing(np.cos(tilt) * inward - np.sin(tilt) * _UP, fingers)


def pull_open(scene: Scene, goal: Sequence[str], outward: float) -> Skill:
    """Hold a drawer's handle from before and pull.

    Args:
        scene: what is seen.
        goal: to be fulfilled.
        outward: 1 where the joint's value grows as it opens, else -1.
    """
    joint = scene.joint(goal[1])
    way = outward * joint.axis
    bar = handle(joint.points, way)
    rotation = tilted(-way, _PULL_TILT, _UP)
    yield from travel(scene, bar + _BEFORE * way, rotation, OPEN, scene.others([]), width=0.05)
    yield from move(scene, bar, rotation, OPEN, within=0.01)
    yield from close(scene)
    for _ in range(60):
        if scene.fulfilled(goal):
            break
        yield from move(scene, scene.position + 0.05 * way, rotation, CLOSED, limit=1)
    yield from grip(scene, OPEN, 4)
    yield from move(scene, scene.position + _BEFORE * way, rotation, OPEN, within=0.02)


def push_shut(scene: Scene, goal: Sequence[str], inward: float) -> Skill:
    """Push a drawer or a door with closed fingers until it is shut.

    Args:
        scene: what is seen.
        goal: to be fulfilled.
        inward: 1 where the joint's value grows as it shuts, else -1.
    """
    joint = scene.joint(goal[1])
    if joint.slides:
        touch = handle(joint.points, -inward * joint.axis)
    else:
        reach = np.linalg.norm(np.cross(joint.points - joint.anchor, joint.axis), axis=1)
        touch = joint.points[reach > reach.max() - 0.04].mean(0)
    way = inward * joint.direction(touch)
    rotation = tilted(way, _PUSH_TILT, np.cross(way, _UP))
    before = touch - _BEFORE * way
    yield from travel(scene, before, rotation, CLOSED, scene.others([]), width=0.06)
    for _ in range(90):
        if scene.fulfilled(goal):
            break
        now = scene.joint(goal[1])
        way = inward * now.direction(scene.position)
        yield from move(scene, scene.position + _PAST * way, rotation, CLOSED, limit=1)
    back = scene.position - _BEFORE * way
    yield from move(scene, back, rotation, CLOSED, within=0.02)


def turn_knob(scene: Scene, goal: Sequence[str], sign: float) -> Skill:
    """Hold a knob's ridge from above and turn it.

    Args:
        scene: what is seen.
        goal: to be fulfilled.
        sign: 1 to turn it to the left, seen from above, else -1.
    """
    points = scene.joint(goal[1]).points
    top = points[:, 2].max()
    ridge = points[points[:, 2] > top - _KNOB_DEPTH]
    middle = (ridge.min(0) + ridge.max(0)) / 2
    _, _, axes = np.linalg.svd(ridge[:, :2] - ridge[:, :2].mean(0), full_matrices=False)
    yaw = float(np.arctan2(axes[1, 1], axes[1, 0]))
    rotation = downward(yaw)
    place = np.array([middle[0], middle[1], top - _KNOB_DEPTH])
    yield from travel(scene, place + by(0, 0, 0.07), rotation, OPEN, scene.others([]))
    yield from move(scene, place, rotation, OPEN, within=0.008)
    yield from close(scene)
    for step in range(40):
        if scene.fulfilled(goal):
            break
        angle = min(_KNOB_TURN, 0.1 * (step + 1))
        yield from move(scene, place, downward(yaw + sign * angle), CLOSED, within=0, limit=1)
    yield from grip(scene, OPEN, 4)
    yield from move(scene, scene.position + by(0, 0, 0.1), scene.rotation, OPEN, within=0.03)
