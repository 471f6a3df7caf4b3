"""Picking things up and putting them somewhere."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.libero.expert.grasping import find_grasps
from rftf_torchrl.libero.expert.motions import Skill, by, close, grip, move, travel
from rftf_torchrl.libero.expert.scene import Scene
from rftf_torchrl.libero.expert.servo import CLOSED, OPEN, downward

_HOVER = 0.06
_OPENING = 4
_LIFT, _LIFTED = 0.04, 0.004
_DROP_IN, _DROP_ON = 0.05, -0.005  # on: until it touches


def pick(scene: Scene, name: str, attempt: int = 0) -> Skill:
    """Take hold of a thing from above and raise it a little."""
    obstacles = scene.others([name])
    grasps = find_grasps(scene.points(name), obstacles, scene.home_yaw)
    grasp = grasps[min(attempt, len(grasps) - 1)]
    rotation = downward(grasp.yaw)
    over = grasp.position + by(0, 0, _HOVER)
    over[2] = max(over[2], scene.points(name)[:, 2].max() + 0.03)
    yield from travel(scene, over, rotation, OPEN, obstacles)
    yield from move(scene, grasp.position, rotation, OPEN, within=0.006)
    yield from close(scene)
    yield from move(scene, scene.position + by(0, 0, _LIFT), rotation, CLOSED, within=0.015)


def put(scene: Scene, name: str, target: str, inside: bool) -> Skill:
    """Carry what is held over a target, lower it and let it go.

    The thing's own origin comes over the target's: of them LIBERO's predicates speak.
    """
    held = scene.points(name)
    offset = scene.place(name) - scene.position
    offset[2] = held[:, 2].min() - scene.position[2]
    obstacles = scene.others([name])
    goal = scene.place(target)
    half = (held[:, :2].max(0) - held[:, :2].min(0)) / 2
    away = np.abs(obstacles[:, :2] - goal[:2])
    under = obstacles[(away < 0.7 * half).all(1), 2]
    goal[2] = under.max() if len(under) else goal[2]
    above = _DROP_IN if inside else _DROP_ON
    end = goal - offset + by(0, 0, above)
    rotation = scene.rotation
    rotation = downward(float(np.arctan2(rotation[1, 0], rotation[0, 0])))
    yield from travel(
        scene,
        end + by(0, 0, 0.05),
        rotation,
        CLOSED,
        obstacles,
        below=-float(offset[2]),
        width=0.12,
    )
    yield from move(scene, end, rotation, CLOSED, within=0.008, speed=0.6)
    yield from grip(scene, OPEN, _OPENING)
    yield from move(scene, scene.position + by(0, 0, 0.1), rotation, OPEN, within=0.03)


def carry(scene: Scene, name: str, target: str, inside: bool, attempt: int = 0) -> Skill:
    """Pick a thing up and put it in or on a target."""
    lay = scene.place(name)[2]
    yield from pick(scene, name, attempt)
    if scene.place(name)[2] > lay + _LIFTED:
        yield from put(scene, name, target, inside)
    else:
        yield from grip(scene, OPEN, _OPENING)
