"""Skills that lift, turn and push blocks."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.calvin.expert.furniture import move_slider, open_drawer
from rftf_torchrl.calvin.expert.grasping import grasp, pick_up
from rftf_torchrl.calvin.expert.motions import CLOSED, OPEN, Skill, by, move, release, rise
from rftf_torchrl.calvin.expert.places import uncovering
from rftf_torchrl.calvin.expert.servo import tool
from rftf_torchrl.calvin.expert.view import View

_TURN = np.deg2rad(60) + 0.22
_PUSH = 0.125
_BUTTON_ROOM = 0.1
_BEHIND_BUTTON = -0.055


def lift(view: View, name: str, place: str) -> Skill:
    """Pick a block up; first uncover it where the door or the table is in the way."""
    block = view.blocks[name]
    if place == "slider":
        yield from _uncover(view, block.position[0])
    elif place == "drawer" and block.position[1] > -0.215:
        yield from rise(view, OPEN)
        yield from open_drawer(view)
    yield from pick_up(view, name)


def _uncover(view: View, x: float) -> Skill:
    """Move the sliding door off a place on the shelf."""
    value = uncovering(view.geometry, view.slider, x)
    if value is not None:
        yield from move_slider(view, value)
        yield from rise(view, CLOSED, 0.6)


def rotate(view: View, name: str, left: bool) -> Skill:
    """Hold a block on the table and turn it."""
    turn = _TURN if left else -_TURN
    yield from grasp(view, name, turn)
    place = view.hand.copy()
    yield from move(view, place, tool(float(view.euler[2]) + turn), CLOSED, turned=0.02)
    yield from release(view)


def push(view: View, name: str, left: bool) -> Skill:
    """Move a block sideways on what it lies on, between the fingers."""
    block = view.blocks[name]
    start = block.position
    yield from grasp(view, name)
    end = view.hand.copy()
    end[0] = start[0] + (-_PUSH if left else _PUSH)
    if abs(end[0] - view.geometry.button_x) < _BUTTON_ROOM and block.place == "table":
        end[1] = max(end[1], _BEHIND_BUTTON)
    yield from move(view, end, tool(float(view.euler[2])), CLOSED)
    yield from release(view)


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
    yield from release(view)


def unstack(view: View) -> Skill:
    """Take the upper block of a stack."""
    stacked = [b for b in view.blocks.values() if b.touched_blocks]
    if not stacked:
        yield from rise(view, OPEN)
        return
    upper = max(stacked, key=lambda b: b.position[2])
    yield from grasp(view, upper.name)
    yield from move(view, view.hand + by(0, 0, 0.12), view.euler.copy(), CLOSED)
