"""Movements that the skills are made of: generators of targets, one a control step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from rftf_torchrl.libero.expert.scene import Scene
from rftf_torchrl.libero.expert.servo import CLOSED, Target

Skill: TypeAlias = Iterator[Target]

_STUCK_STEPS = 10
_LONGEST_CLOSING, _STILL, _PRESSING = 16, 0.0007, 2
_HIGHEST = 1.45


def by(x: float, y: float, z: float) -> np.ndarray:
    """A way to go [3], metres: away from the robot, left, up."""
    return np.array([x, y, z], dtype=np.float64)


def move(
    scene: Scene,
    position: np.ndarray,
    rotation: np.ndarray,
    gripper: float,
    *,
    within: float = 0.008,
    turned: float = 0.1,
    speed: float = 1.0,
    limit: int = 60,
) -> Skill:
    """Go straight to a place until there, or stuck, or out of steps.

    Args:
        scene: what is seen.
        position: metres [3].
        rotation: of the hand [3, 3].
        gripper: command during the movement.
        within: how close counts as there, metres.
        turned: how close counts as turned, radians.
        speed: at most this part of the fastest movement.
        limit: most steps.
    """
    best, since = np.inf, 0
    for _ in range(limit):
        distance = float(np.linalg.norm(scene.position - position))
        angle = scene.angle_to(rotation)
        if distance < within and angle < turned:
            return
        left = distance + 0.1 * angle
        best, since = (left, 0) if left < best - 0.001 else (best, since + 1)
        if since > _STUCK_STEPS:
            return
        yield Target(position, rotation, gripper, speed)


def grip(scene: Scene, gripper: float, steps: int) -> Skill:
    """Stay where the hand is while the gripper opens or closes."""
    place, rotation = scene.position, scene.rotation
    for _ in range(steps):
        yield Target(place, rotation, gripper)


def close(scene: Scene) -> Skill:
    """Close the gripper until the fingers stand still, and press."""
    place, rotation = scene.position, scene.rotation
    before, still = np.inf, 0
    for _ in range(_LONGEST_CLOSING):
        yield Target(place, rotation, CLOSED)
        still = still + 1 if abs(before - scene.opening) < _STILL else 0
        before = scene.opening
        if still > _PRESSING:
            return


def corridor_top(points: np.ndarray, start: np.ndarray, end: np.ndarray, width: float) -> float:
    """How high points reach that are near the straight way between two places, seen from above.

    Args:
        points: float [n, 3].
        start: one end [3].
        end: the other one [3].
        width: how near to the way counts, metres.

    Example:
        >>> points = np.array([[0.5, 0.0, 1.2], [0.5, 0.4, 2.0], [2.0, 0.0, 2.0]])
        >>> float(corridor_top(points, np.zeros(3), np.array([1.0, 0.0, 0.0]), 0.1))
        1.2
    """
    way = (end - start)[:2]
    along = np.clip((points[:, :2] - start[:2]) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
    aside = points[:, :2] - (start[:2] + along[:, None] * way)
    near = points[np.linalg.norm(aside, axis=1) < width, 2]
    return float(near.max()) if len(near) else -np.inf


def travel(
    scene: Scene,
    position: np.ndarray,
    rotation: np.ndarray,
    gripper: float,
    obstacles: np.ndarray,
    *,
    below: float = 0.02,
    width: float = 0.1,
) -> Skill:
    """Go to a place above everything on the way.

    Args:
        scene: what is seen.
        position: metres [3].
        rotation: of the hand [3, 3].
        gripper: command during the movement.
        obstacles: points on what is in the way [n, 3].
        below: how far the hand and what it holds reach below ``position``.
        width: how near to the way a thing is in it.
    """
    here = scene.position
    height = corridor_top(obstacles, here, position, width) + below + 0.02
    lane = max(position[2], min(height, _HIGHEST))
    if here[2] < lane - 0.02 and np.linalg.norm((position - here)[:2]) > 0.03:
        up = np.array([here[0], here[1], lane])
        yield from move(scene, up, scene.rotation, gripper, within=0.03, turned=4.0)
    over = np.array([position[0], position[1], lane])
    yield from move(scene, over, rotation, gripper, within=0.02, turned=0.3)
    if lane > position[2] + 0.01:
        yield from move(scene, position, rotation, gripper, within=0.02)
