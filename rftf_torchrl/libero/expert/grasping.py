"""Where to grasp an object, from points on it and on what is around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

_WIDEST = 0.07  # what fits between the open fingers
_BELOW_PALM = 0.027
_LOWEST = 0.008
_TIP = 0.009  # the fingers reach this far beyond the place between them
_TOUCHING = 0.005  # no hit: what a thing lies on
_RIM_DEPTH = 0.02
_WALL = 0.006  # from a rim's outside to where its wall is
_FAR_INWARD = 0.022
_PER_HIT, _MOST_THERE = 0.05, 10
_EASY_REACH = 0.76  # beyond, a hand that points down stretches the arm until its elbow turns over
_UP = np.array([0.0, 0.0, 1.0])
_YAWS = np.arange(-18, 19) * np.pi / 36


@dataclass(frozen=True)
class Grasp:
    """How to hold a thing from above.

    Attributes:
        position: of the place between the fingertips [3].
        yaw: of the axis along which the fingers open.
        cost: small for a good one.
    """

    position: np.ndarray
    yaw: float
    cost: float


def find_grasps(
    points: np.ndarray,
    obstacles: np.ndarray,
    yaw: float,
    base: np.ndarray,
    way: np.ndarray | None = None,
    up: np.ndarray = _UP,
) -> list[Grasp]:
    """Ways to hold a thing from above, the best one first.

    An object that fits between the fingers is held across its narrow side; a wider one is held by
    its rim. Grasps at which other objects would touch the open hand on its way down come last,
    where the object is or where it goes.

    Args:
        points: on the thing [n, 3].
        obstacles: on others [m, 3].
        yaw: of the hand at rest; a small turn is better than a large one.
        base: where the robot stands [3]; what is easy to reach from there is better.
        way: from where the thing is to where it goes [3]; ``None`` if it stays.
        up: the thing's own axis that points up [3], of length 1; another than (0, 0, 1) where it
            leans.

    Example:
        >>> box = np.array([[x, y, z] for x in (0, 0.1) for y in (0, 0.03) for z in (0, 0.04)])
        >>> best = find_grasps(box, np.zeros((0, 3)), yaw=1.5, base=np.zeros(3))[0]
        >>> best.position.round(3).tolist(), round(abs(float(np.sin(best.yaw))), 2)
        ([0.05, 0.015, 0.013], 1.0)
    """
    candidates = list(_pinches(points, yaw)) or list(_rims(points, yaw, up))
    graded = []
    for grasp in candidates:
        hits = float(_hits(grasp, obstacles))
        too_far = max(0.0, float(np.linalg.norm((grasp.position - base)[:2])) - _EASY_REACH)
        if way is not None:
            there = replace(grasp, position=grasp.position + way)
            hits += min(_hits(there, obstacles), _MOST_THERE) / 2
        graded.append(replace(grasp, cost=grasp.cost + _PER_HIT * hits + too_far))
    return sorted(graded, key=lambda grasp: grasp.cost)


def _pinches(points: np.ndarray, yaw: float) -> Iterator[Grasp]:
    low, high = points[:, 2].min(), points[:, 2].max()
    height = max(low + _LOWEST, min(high - _BELOW_PALM, (low + high) / 2 + 0.01))
    above = points[points[:, 2] > height - _TIP - 0.005]
    for turned in _YAWS:
        along = np.array([np.cos(yaw + turned), np.sin(yaw + turned)])
        across = np.array([-along[1], along[0]])
        first, last = np.sort(above[:, :2] @ along)[[0, -1]]
        if last - first > _WIDEST:
            continue
        left, right = np.sort(above[:, :2] @ across)[[0, -1]]
        for shift in (0.0, -0.25, 0.25):
            place = along * (first + last) / 2
            place = place + across * ((left + right) / 2 + shift * (right - left))
            cost = last - first + 0.003 * abs(turned) + 0.012 * abs(shift)
            yield Grasp(np.array([*place, height]), yaw + turned, cost)


def _rims(points: np.ndarray, yaw: float, up: np.ndarray) -> Iterator[Grasp]:
    height = points @ up
    rim = points[height > height.max() - 0.01]
    middle = (rim[:, :2].min(0) + rim[:, :2].max(0)) / 2
    for turned in _YAWS[::2]:
        along = np.array([np.cos(yaw + turned), np.sin(yaw + turned)])
        for side in (-1.0, 1.0):
            radius = ((rim[:, :2] - middle) @ along * side).max()
            for inward in (_WALL, _FAR_INWARD):  # a closing finger draws the wall along
                place = middle + side * along * (radius - inward)
                cost = 0.08 + 0.02 * abs(turned) + 0.02 * float(np.linalg.norm(place)) + inward
                top = (height.max() - place @ up[:2]) / up[2]
                down = max(points[:, 2].min() + _LOWEST, top - _RIM_DEPTH)
                yield Grasp(np.array([*place, down]), yaw + turned, cost)


def _hits(grasp: Grasp, obstacles: np.ndarray) -> int:
    """How many points the open hand would touch on its way down."""
    along = np.array([np.cos(grasp.yaw), np.sin(grasp.yaw)])
    apart = (obstacles[:, :2] - grasp.position[:2]) @ np.stack([along, [-along[1], along[0]]], 1)
    out, side = np.abs(apart).T
    above = obstacles[:, 2] - grasp.position[2]
    fingers = (out > 0.03) & (out < 0.068) & (side < 0.015) & (above > _TOUCHING - _TIP)
    palm = (out < 0.108) & (side < 0.036) & (above > _BELOW_PALM)
    return int((fingers | palm).sum())
