"""Skills for the blocks."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from rftf_torchrl.envs.calvin.expert.furniture import move_slider, open_drawer
from rftf_torchrl.envs.calvin.expert.motions import (
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
from rftf_torchrl.envs.calvin.expert.places import drawer_spot, shelf_spot, uncovering
from rftf_torchrl.envs.calvin.expert.servo import tool
from rftf_torchrl.envs.calvin.expert.view import BlockView, View

__all__ = [
    "grasp",
    "let_go",
    "lift",
    "pick_up",
    "place_in_drawer",
    "place_in_slider",
    "push",
    "push_into_drawer",
    "rotate",
    "stack",
    "unstack",
]

_SHELF_TILT = 0.65
_BUTTON_ROOM = 0.1
_BEHIND_BUTTON = -0.055
_TURN = np.deg2rad(60) + 0.22


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


def lift(view: View, name: str, place: str) -> Skill:
    """Pick a block up; first uncover it where the door or the table is in the way."""
    block = view.blocks[name]
    if place == "slider":
        yield from uncover(view, block.position[0])
    elif place == "drawer" and block.position[1] > -0.215:
        yield from rise(view, OPEN)
        yield from open_drawer(view)
    yield from pick_up(view, name)


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
        x, y = float(view.hand[0]), float(np.clip(view.hand[1], -0.13, -0.08))
        down = np.array([x, y, 0.442 + _holding(view)])
        yield from travel(view, down, view.euler.copy(), CLOSED, height=0.53)
    between = [b for b in view.blocks.values() if _between_fingers(view, b)]
    if between:
        yield from grip(view, OPEN, 3)
        yield from rise(view, OPEN, max(b.top for b in between) + 0.055)


def _between_fingers(view: View, block: BlockView) -> bool:
    near = float(np.linalg.norm(block.position[:2] - view.hand[:2])) < 0.05
    return near and abs(float(view.hand[2] - block.position[2])) < 0.055


def uncover(view: View, x: float) -> Skill:
    """Move the sliding door off a place on the shelf."""
    value = uncovering(view.geometry, view.slider, x)
    if value is not None:
        gripper = CLOSED
        yield from move_slider(view, value, gripper)
        yield from rise(view, gripper, 0.6)


def rotate(view: View, name: str, left: bool) -> Skill:
    """Hold a block on the table and turn it."""
    turn = _TURN if left else -_TURN
    yield from grasp(view, name, turn)
    place = view.hand.copy()
    yield from move(view, place, tool(float(view.euler[2]) + turn), CLOSED, turned=0.02)
    yield from grip(view, OPEN)
    yield from rise(view, OPEN)


def push(view: View, name: str, left: bool) -> Skill:
    """Move a block sideways on what it lies on, between the fingers."""
    block = view.blocks[name]
    start = block.position
    yield from grasp(view, name)
    end = view.hand.copy()
    end[0] = start[0] + (-0.125 if left else 0.125)
    if abs(end[0] - view.geometry.button_x) < _BUTTON_ROOM and block.place == "table":
        end[1] = max(end[1], _BEHIND_BUTTON)
    yield from move(view, end, tool(float(view.euler[2])), CLOSED)
    yield from grip(view, OPEN)
    yield from rise(view, OPEN)


def _holding(view: View) -> float:
    """How far below the fingertips' middle the held block reaches."""
    block = view.held
    return 0.02 if block is None else float(view.hand[2] - block.position[2] + block.extent[2])


def _arm(view: View, euler: np.ndarray) -> np.ndarray:
    """From the held block's middle to the hand [3], once the hand has turned to ``euler``."""
    if view.held is None:
        return np.zeros(3)
    turn = Rotation.from_euler("xyz", euler) * Rotation.from_euler("xyz", view.euler).inv()
    return turn.apply(view.hand - view.held.position)


def place_in_slider(view: View) -> Skill:
    """Put the held block on the open part of the shelf."""
    if view.held is None:
        yield from rise(view, CLOSED)
        return
    value, x = shelf_spot(view.geometry, view.slider, view.blocks, view.held.name)
    if value is not None:
        yield from move_slider(view, value)
    euler = levelling(view, view.held, np.pi / 2)
    place = np.array([x, 0.07, 0.467]) + _arm(view, euler)
    yield from travel(view, place + by(0, 0, 0.1), euler, CLOSED, height=0.6, within=0.02)
    yield from move(view, place, euler, CLOSED, limit=30)
    yield from grip(view, OPEN)
    yield from rise(view, OPEN, 0.6)


def place_in_drawer(view: View) -> Skill:
    """Let the held block down into the drawer."""
    if view.held is None:
        yield from rise(view, CLOSED)
        return
    x, y = drawer_spot(view.geometry, view.drawer, view.blocks, view.held.name)
    euler = levelling(view, view.held, np.pi / 2)
    place = np.array([x, y, 0.37]) + _arm(view, euler)
    yield from travel(view, place + by(0, 0, 0.1), euler, CLOSED, height=0.58, within=0.02)
    yield from move(view, place, euler, CLOSED, limit=30)
    yield from grip(view, OPEN)
    yield from rise(view, OPEN)


def push_into_drawer(view: View) -> Skill:
    """Sweep a block over the table's edge into the open drawer."""
    candidates = [b for b in view.blocks.values() if b.place == "table"]
    free = [b for b in candidates if not b.touched_by_robot and not b.touched_blocks]
    middle = view.geometry.drawer_x
    block = min(free or candidates, key=lambda b: abs(b.position[0] - middle), default=None)
    if block is None:
        yield from rise(view, OPEN)
        return
    yield from rise(view, OPEN)
    yield from grasp(view, block.name)
    low, high = view.geometry.drawer_span()
    x = float(np.clip(view.hand[0], low + 0.07, high - 0.07))
    euler = tool(float(view.euler[2]))
    over = np.array([x, -0.24, float(view.hand[2]) + 0.012])
    yield from move(view, over, euler, CLOSED, within=0.01)
    yield from grip(view, OPEN)
    yield from rise(view, OPEN)


def stack(view: View) -> Skill:
    """Put the held block on another one."""
    if view.held is None:
        free = [b for b in view.blocks.values() if not b.touched_blocks]
        easy = min(free or view.blocks.values(), key=lambda b: _distance(view, b))
        yield from pick_up(view, easy.name)
    top = view.held
    if top is None:
        return
    base = _best_base(view, top.name)
    euler = levelling(view, top)
    height = base.top + 0.022
    down = np.array([*base.position[:2], height])
    above = down + _arm(view, euler) + by(0, 0, 0.04)
    yield from travel(view, above, euler, CLOSED, height=0.6, within=0.008)
    down = down + view.hand - view.blocks[top.name].position
    yield from move(view, down, euler, CLOSED, within=0.004)
    yield from grip(view, OPEN)
    yield from rise(view, OPEN, float(view.hand[2]) + 0.08)


def levelling(view: View, block: BlockView, yaw: float | None = None) -> np.ndarray:
    """Euler angles [3] of the hand for which the block that it holds lies level.

    Args:
        view: the state now.
        block: what the hand holds.
        yaw: that of the hand then; ``None`` for about what it is.
    """
    hand = Rotation.from_euler("xyz", view.euler)
    axis = int(np.abs(block.rotation[2]).argmax())
    up = block.rotation[:, axis] * np.sign(block.rotation[2, axis])
    correction, _ = Rotation.align_vectors([[0.0, 0.0, 1.0]], [up])
    euler = (correction * hand).as_euler("xyz")
    if yaw is not None:
        euler[2] = yaw
    return euler


def _best_base(view: View, held: str) -> BlockView:
    return min(
        (b for b in view.blocks.values() if b.name != held), key=lambda b: _distance(view, b)
    )


def _distance(view: View, block: BlockView) -> float:
    """How far a block is from the hand, metres; more where it is harder to get at."""
    away = float(np.linalg.norm(block.position - view.hand))
    return away + {"table": 0.0, "drawer": 1.0, "slider": 2.0}.get(block.place or "", 3.0)


def unstack(view: View) -> Skill:
    """Take the upper block of a stack."""
    stacked = [b for b in view.blocks.values() if b.touched_blocks]
    if not stacked:
        yield from rise(view, OPEN)
        return
    upper = max(stacked, key=lambda b: b.position[2])
    yield from grasp(view, upper.name)
    yield from move(view, view.hand + by(0, 0, 0.12), view.euler.copy(), CLOSED)
