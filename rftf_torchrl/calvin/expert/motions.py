"""Movements that the skills are made of: generators of targets, one a control step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from rftf_torchrl.calvin.expert.servo import Target, wrap
from rftf_torchrl.calvin.expert.view import View

Skill: TypeAlias = Iterator[Target]

OPEN, CLOSED = 1.0, -1.0
REST_YAW = 1.5
LANE_Y = -0.13
LANE_Z = 0.55
_STUCK_STEPS = 8


def by(x: float, y: float, z: float) -> np.ndarray:
    """A way to go [3], metres: right, forward, up."""
    return np.array([x, y, z], dtype=np.float64)


def near_yaw(yaw: float, period: float = np.pi, near: float = REST_YAW) -> float:
    """The angle closest to ``near`` that is ``yaw`` plus a multiple of ``period``.

    Example:
        >>> round(near_yaw(-1.5), 3)
        1.642
    """
    return float(yaw + period * np.round((near - yaw) / period))


def move(
    view: View,
    position: np.ndarray | Callable[[], np.ndarray],
    euler: np.ndarray,
    gripper: float,
    *,
    within: float = 0.006,
    turned: float = 0.06,
    limit: int = 80,
) -> Skill:
    """Go straight to a place, which may move, until there, or stuck, or out of steps.

    Args:
        view: refreshed by the caller between two targets.
        position: metres [3], or a function of nothing that gives it at each step.
        euler: angles of the hand [3].
        gripper: command during the movement.
        within: how close counts as there, metres.
        turned: how close counts as turned, radians.
        limit: most steps.
    """
    best, since = np.inf, 0
    for _ in range(limit):
        place = position() if callable(position) else position
        distance = float(np.linalg.norm(view.hand - place))
        angle = float(np.abs(wrap(view.euler - euler)).max())
        if distance < within and angle < turned:
            return
        left = distance + 0.1 * angle
        best, since = (left, 0) if left < best - 0.001 else (best, since + 1)
        if since > _STUCK_STEPS:
            return
        yield Target(place, euler, gripper)


def grip(view: View, gripper: float, steps: int = 5) -> Skill:
    """Stay where the hand is while the gripper opens or closes."""
    place, euler = view.hand.copy(), view.euler.copy()
    for _ in range(steps):
        yield Target(place, euler, gripper)


def rise(view: View, gripper: float, height: float = LANE_Z) -> Skill:
    """Move the hand up and out."""
    if view.hand[2] < height - 0.02:
        up = np.array([view.hand[0], view.hand[1], height])
        yield from move(view, up, view.euler.copy(), gripper, within=0.025, turned=3.2)


def release(view: View, height: float = LANE_Z) -> Skill:
    """Open the gripper and go up."""
    yield from grip(view, OPEN)
    yield from rise(view, OPEN, height)


def travel(
    view: View,
    position: np.ndarray,
    euler: np.ndarray,
    gripper: float,
    *,
    height: float = LANE_Z,
    within: float = 0.01,
) -> Skill:
    """Go to a place by the free lane before the cabinet and above the table."""
    aside = float(np.linalg.norm(position[:2] - view.hand[:2]))
    if aside > 0.04:
        yield from rise(view, gripper, height)
        across = abs(float(position[0] - view.hand[0])) > 0.06
        if across and view.hand[1] > LANE_Y + 0.06:
            back = np.array([view.hand[0], LANE_Y, max(height, view.hand[2])])
            yield from move(view, back, view.euler.copy(), gripper, within=0.04, turned=3.2)
        if across and position[1] > LANE_Y + 0.06:
            along = np.array([position[0], LANE_Y, max(height, position[2])])
            yield from move(view, along, euler, gripper, within=0.04, turned=0.3)
        above = np.array([position[0], position[1], max(height, position[2])])
        yield from move(view, above, euler, gripper, within=0.03, turned=0.3)
    yield from move(view, position, euler, gripper, within=within)
