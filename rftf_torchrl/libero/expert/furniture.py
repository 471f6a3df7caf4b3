"""Opening and closing drawers and doors, and turning knobs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rftf_torchrl.libero.expert.motions import Skill, by, close, grip, move, travel
from rftf_torchrl.libero.expert.scene import Joint, Scene
from rftf_torchrl.libero.expert.servo import CLOSED, OPEN, Target, downward, pointing

_UP = by(0, 0, 1)
_HANDLE = 0.018  # how thick a handle is
_BEFORE, _PAST = 0.07, 0.04
_PULL_TILT, _PUSH_TILT = 0.3, 0.8
_KNOB_DEPTH = 0.016
_KNOB_TURN = 1.2
_DOOR_END = 0.06
_LONGEST, _OPENING = 90, 4


def outermost(points: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """The points of a part that stand out furthest: those of its handle, if it has one.

    Args:
        points: on the part [n, 3].
        outward: the way [3].

    Example:
        >>> face = np.array([[x, 0.0, z] for x in (-0.1, 0.1) for z in (0.0, 0.1)])
        >>> bar = np.array([[x, 0.03, 0.05] for x in (-0.04, 0.04)])
        >>> outermost(np.concatenate([face, bar]), np.array([0.0, 1.0, 0.0])).tolist()
        [[-0.04, 0.03, 0.05], [0.04, 0.03, 0.05]]
    """
    height = points @ outward
    found: np.ndarray = points[height > height.max() - _HANDLE]
    return found


def _middle(points: np.ndarray) -> np.ndarray:
    middle: np.ndarray = (points.min(0) + points.max(0)) / 2
    return middle


def _free_end(joint: Joint) -> np.ndarray:
    """The points of a drawer, or those of a door that are far from its hinge."""
    if joint.slides:
        return joint.points
    reach = np.linalg.norm(np.cross(joint.points - joint.anchor, joint.axis), axis=1)
    far: np.ndarray = joint.points[reach > reach.max() - _DOOR_END]
    return far


def _tilted(inward: np.ndarray, tilt: float, fingers: np.ndarray) -> np.ndarray:
    """The rotation of a hand that points inward, ``tilt`` radians below the horizontal."""
    return pointing(np.cos(tilt) * inward - np.sin(tilt) * _UP, fingers)


def pull_open(scene: Scene, goal: Sequence[str], outward: float) -> Skill:
    """Hold a handle from before and pull.

    Args:
        scene: what is seen.
        goal: to be fulfilled.
        outward: 1 where the joint's value grows as it opens, else -1.
    """
    joint = scene.joint(goal[1])
    end = _free_end(joint)
    way = outward * joint.direction(_middle(end))
    bar = outermost(end, way)
    length = bar.max(0) - bar.min(0)
    upright = length[2] > np.linalg.norm(length[:2])
    place = _middle(bar)

    def towards(way: np.ndarray) -> np.ndarray:
        return _tilted(-way, _PULL_TILT, np.cross(way, _UP) if upright else _UP)

    before, obstacles = place + _BEFORE * way, scene.others([])
    yield from travel(scene, before, towards(way), OPEN, obstacles, width=0.05)
    yield from move(scene, place, towards(way), OPEN, within=0.01)
    yield from close(scene)
    for _ in range(_LONGEST):
        if scene.fulfilled(goal):
            break
        way = outward * joint.direction(scene.position)
        yield Target(scene.position + _PAST * way, towards(way), CLOSED)
    yield from grip(scene, OPEN, _OPENING)
    yield from move(scene, scene.position + _BEFORE * way, towards(way), OPEN, within=0.02)


def push_shut(scene: Scene, goal: Sequence[str], inward: float) -> Skill:
    """Push a drawer or a door with closed fingers until it is shut.

    Args:
        scene: what is seen.
        goal: to be fulfilled.
        inward: 1 where the joint's value grows as it shuts, else -1.
    """
    joint = scene.joint(goal[1])
    end = _free_end(joint)
    way = inward * joint.direction(_middle(end))
    touch = _middle(outermost(end, -way))
    rotation = _tilted(way, _PUSH_TILT, np.cross(way, _UP))
    before, obstacles = touch - _BEFORE * way, scene.others([])
    yield from travel(scene, before, rotation, CLOSED, obstacles, width=0.06)
    for _ in range(_LONGEST):
        if scene.fulfilled(goal):
            break
        way = inward * joint.direction(scene.position)
        yield Target(scene.position + _PAST * way, rotation, CLOSED)
    yield from move(scene, scene.position - _BEFORE * way, rotation, CLOSED, within=0.02)


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
    middle = _middle(ridge)
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
        yield Target(place, downward(yaw + sign * angle), CLOSED)
    yield from grip(scene, OPEN, _OPENING)
    yield from move(scene, scene.position + by(0, 0, 0.1), scene.rotation, OPEN, within=0.03)
