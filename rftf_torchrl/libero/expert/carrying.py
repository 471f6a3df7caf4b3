"""Picking things up and putting them somewhere."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.libero.expert.grasping import find_grasps
from rftf_torchrl.libero.expert.motions import Skill, by, close, grip, move, travel
from rftf_torchrl.libero.expert.scene import Scene
from rftf_torchrl.libero.expert.servo import CLOSED, OPEN, downward

_HOVER = 0.06
_OPENING = 4
_MARGIN, _CLEAR = 0.02, 0.005
_LIFT, _LIFTED = 0.04, 0.004
_DROP_IN, _DROP_ON = 0.05, -0.005  # on: until it touches
_SLIPPED = 0.04


def pick(scene: Scene, name: str, target: str, inside: bool, attempt: int = 0) -> Skill:
    """Grasp an object from above, raise it a little, and move it from under what hangs over it."""
    obstacles, points = scene.others([name]), scene.points(name)
    way = _landing(scene, name, target, inside) - _foot(scene, name)
    others = scene.others([name, target])
    grasps = find_grasps(points, others, scene.home_yaw, scene.base, way, scene.upright(name))
    grasp = grasps[min(attempt, len(grasps) - 1)]
    rotation = downward(grasp.yaw)
    over = grasp.position + by(0, 0, _HOVER)
    over[2] = max(over[2], points[:, 2].max() + 0.03)
    yield from travel(scene, over, rotation, OPEN, obstacles)
    yield from move(scene, grasp.position, rotation, OPEN, within=0.006)
    yield from close(scene)
    up = scene.position + by(0, 0, _LIFT)
    yield from move(scene, up, rotation, CLOSED, within=0.015)
    out = escape(scene.points(name), obstacles)
    if out.any():
        yield from move(scene, scene.position + out, rotation, CLOSED, within=0.015)


def escape(held: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """The shortest way [3] along x or y after which nothing is above a thing, zero if none helps.

    Args:
        held: points on the thing [n, 3].
        obstacles: points on others [m, 3].

    Example:
        >>> held = np.array([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
        >>> escape(held, np.array([[0.09, 0.05, 0.3]])).round(3).tolist()
        [-0.035, 0.0, 0.0]
    """
    low, high = held.min(0)[:2] - _MARGIN, held.max(0)[:2] + _MARGIN
    above = obstacles[obstacles[:, 2] > held[:, 2].max(), :2]

    def under(out: np.ndarray) -> np.ndarray:
        found: np.ndarray = above[((above > low + out) & (above < high + out)).all(1)]
        return found

    over = under(np.zeros(2))
    if not len(over):
        return np.zeros(3)
    beyond = over.max(0) - low + _CLEAR, over.min(0) - high - _CLEAR
    ways = np.concatenate([np.diag(way) for way in beyond])
    free = [way for way in ways if not len(under(way))]
    shortest = min(free, key=lambda way: float(np.abs(way).sum()), default=np.zeros(2))
    return np.array([*shortest, 0.0])


def _foot(scene: Scene, name: str) -> np.ndarray:
    """A thing's origin [3], of which predicates speak, at the height of its lowest point."""
    return np.array([*scene.place(name)[:2], scene.points(name)[:, 2].min()])


def _landing(scene: Scene, name: str, target: str, inside: bool) -> np.ndarray:
    """Where a thing's foot is let go over a target [3]."""
    points, obstacles, goal = scene.points(name), scene.others([name]), scene.place(target)
    half = (points[:, :2].max(0) - points[:, :2].min(0)) / 2
    away = np.abs(obstacles[:, :2] - goal[:2])
    under = obstacles[(away < 0.7 * half).all(1), 2]
    surface = under.max() if len(under) else goal[2]
    return np.array([goal[0], goal[1], surface + (_DROP_IN if inside else _DROP_ON)])


def bring(scene: Scene, name: str, target: str, inside: bool) -> Skill:
    """Carry what is held over a target and lower it."""
    offset = _foot(scene, name) - scene.position
    end = _landing(scene, name, target, inside) - offset
    obstacles = scene.others([name])
    fingers = scene.rotation[:, 0]
    rotation = downward(float(np.arctan2(fingers[1], fingers[0])))
    below = -float(offset[2])
    over = end + by(0, 0, 0.05)
    yield from travel(scene, over, rotation, CLOSED, obstacles, below=below, width=0.12)
    yield from move(scene, end, rotation, CLOSED, speed=0.6)


def while_held(scene: Scene, name: str, skill: Skill) -> Skill:
    """Go on with a skill until what is held has slipped away."""
    held = scene.place(name) - scene.position
    for target in skill:
        if np.linalg.norm(scene.place(name) - scene.position - held) > _SLIPPED:
            return
        yield target


def carry(scene: Scene, name: str, target: str, inside: bool, attempt: int = 0) -> Skill:
    """Pick up an object and put it in or on a target."""
    lay = scene.place(name)[2]
    yield from pick(scene, name, target, inside, attempt)
    if scene.place(name)[2] > lay + _LIFTED:
        yield from while_held(scene, name, bring(scene, name, target, inside))
        yield from grip(scene, OPEN, _OPENING)
        up = scene.position + by(0, 0, 0.1)
        yield from move(scene, up, scene.rotation, OPEN, within=0.03)
    else:
        yield from grip(scene, OPEN, _OPENING)
