"""Taking hold of blocks, and letting go of them."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.calvin.expert.motions import (
    CLOSED,
    LANE_Z,
    OPEN,
    REST_YAW,
    Skill,
    by,
    grip,
    move,
    near_yaw,
    rise,
    travel,
)
from rftf_torchrl.calvin.expert.servo import tool
from rftf_torchrl.calvin.expert.view import BlockView, View, rotation_class

_SHELF_TILT = 0.65
_LANE = (-0.13, -0.08)
_TABLE_Z = 0.442


def grasp_height(block: BlockView) -> float:
    """Where the fingertips close on a block: low, but above what it lies on."""
    return max(float(block.position[2]) + 0.006, block.top - 0.03)


def grasp_yaw(block: BlockView, turn: float = 0.0) -> float:
    """The yaw of the hand that holds the block across its short side.

    Of the equivalent ones, that for which the hand stays closest to its rest before and after it
    turns by ``turn``.
    """
    period = np.pi / 2 if block.square else np.pi
    return near_yaw(block.heading, period, REST_YAW - turn / 2)


def shelf_yaw(block: BlockView) -> float:
    """As :func:`grasp_yaw`, but straight into the cabinet as far as the block fits so.

    The closing fingers turn the block; a hand that is turned there touches the walls.
    """
    yaw = grasp_yaw(block)
    play = 0.4 if block.half_size[0] > 0.03 else 0.6
    return yaw + float(np.clip(np.pi / 2 - yaw, -play, play))


def grasp(view: View, name: str, turn: float = 0.0) -> Skill:
    """Close the gripper around a block."""
    if view.held is not None and view.held.name == name:
        return
    block = view.blocks[name]
    euler = tool(grasp_yaw(block, turn))
    if block.place == "slider":
        euler = tool(shelf_yaw(block), _SHELF_TILT)
    place = np.array([*block.position[:2], grasp_height(block)])
    hover = place + by(0, 0, 0.05 if block.place == "table" else 0.08)
    yield from travel(view, hover, euler, OPEN, within=0.012)
    yield from move(view, place, euler, OPEN, within=0.005)
    yield from grip(view, CLOSED)


def pick_up(view: View, name: str) -> Skill:
    """Grasp a block where it is and raise it."""
    back = 0.03 if view.blocks[name].place == "slider" else 0.0
    yield from grasp(view, name)
    up = np.array([view.hand[0], view.hand[1] - back, max(LANE_Z, view.hand[2] + 0.1)])
    yield from move(view, up, view.euler.copy(), CLOSED)


def let_go(view: View) -> Skill:
    """Put down what is held and leave the block between the fingers, if any, before they close."""
    block = view.held
    if block is not None and block.place is None and not block.touched_blocks:
        x, y = float(view.hand[0]), float(np.clip(view.hand[1], *_LANE))
        down = np.array([x, y, _TABLE_Z + _below_hand(view)])
        yield from travel(view, down, view.euler.copy(), CLOSED, height=0.53)
    between = [b for b in view.blocks.values() if _between_fingers(view, b)]
    if between:
        yield from grip(view, OPEN, 3)
        yield from rise(view, OPEN, max(b.top for b in between) + 0.055)


def _between_fingers(view: View, block: BlockView) -> bool:
    near = float(np.linalg.norm(block.position[:2] - view.hand[:2])) < 0.05
    return near and abs(float(view.hand[2] - block.position[2])) < 0.055


def _below_hand(view: View) -> float:
    """How far below the fingertips' middle the held block reaches."""
    block = view.held
    return 0.02 if block is None else float(view.hand[2] - block.position[2] + block.extent[2])


def arm(view: View, euler: np.ndarray) -> np.ndarray:
    """From the held block's middle to the hand [3], once the hand has turned to ``euler``."""
    if view.held is None:
        return np.zeros(3)
    rotation = rotation_class()
    turn = rotation.from_euler("xyz", euler) * rotation.from_euler("xyz", view.euler).inv()
    offset: np.ndarray = turn.apply(view.hand - view.held.position)
    return offset


def levelling(view: View, block: BlockView, yaw: float | None = None) -> np.ndarray:
    """Euler angles [3] of the hand for which the block that it holds lies level.

    Args:
        view: the state now.
        block: what the hand holds.
        yaw: that of the hand then; ``None`` for about what it is.
    """
    rotation = rotation_class()
    hand = rotation.from_euler("xyz", view.euler)
    axis = int(np.abs(block.rotation[2]).argmax())
    up = block.rotation[:, axis] * np.sign(block.rotation[2, axis])
    correction, _ = rotation.align_vectors([[0.0, 0.0, 1.0]], [up])
    euler: np.ndarray = (correction * hand).as_euler("xyz")
    if yaw is not None:
        euler[2] = yaw
    return euler
