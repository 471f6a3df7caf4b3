"""Skills that put the held block somewhere."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.calvin.expert.furniture import move_slider
from rftf_torchrl.calvin.expert.grasping import arm, levelling, pick_up
from rftf_torchrl.calvin.expert.motions import (
    CLOSED,
    LANE_Z,
    OPEN,
    Skill,
    by,
    grip,
    move,
    release,
    rise,
    travel,
)
from rftf_torchrl.calvin.expert.places import drawer_spot, shelf_spot
from rftf_torchrl.calvin.expert.view import BlockView, View

_SHELF_Y = 0.07
_SHELF_Z = 0.467
_DRAWER_Z = 0.37


def place_in_slider(view: View) -> Skill:
    """Put the held block on the open part of the shelf."""
    if view.held is None:
        yield from rise(view, CLOSED)
        return
    value, x = shelf_spot(view.geometry, view.slider, view.blocks, view.held.name)
    if value is not None:
        yield from move_slider(view, value)
    yield from _put_down(view, by(x, _SHELF_Y, _SHELF_Z), 0.6, 0.6)


def place_in_drawer(view: View) -> Skill:
    """Let the held block down into the drawer."""
    if view.held is None:
        yield from rise(view, CLOSED)
        return
    x, y = drawer_spot(view.geometry, view.drawer, view.blocks, view.held.name)
    yield from _put_down(view, by(x, y, _DRAWER_Z), 0.58, LANE_Z)


def _put_down(view: View, place: np.ndarray, height: float, end: float) -> Skill:
    """Bring the held block to a place from ``height``, let go of it, and rise to ``end``."""
    if view.held is None:
        return
    euler = levelling(view, view.held, np.pi / 2)
    place = place + arm(view, euler)
    yield from travel(view, place + by(0, 0, 0.1), euler, CLOSED, height=height, within=0.02)
    yield from move(view, place, euler, CLOSED, limit=30)
    yield from release(view, end)


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
    above = down + arm(view, euler) + by(0, 0, 0.04)
    yield from travel(view, above, euler, CLOSED, height=0.6, within=0.008)
    down = down + view.hand - view.blocks[top.name].position
    yield from move(view, down, euler, CLOSED, within=0.004)
    yield from grip(view, OPEN)
    yield from rise(view, OPEN, float(view.hand[2]) + 0.08)


def _best_base(view: View, held: str) -> BlockView:
    return min(
        (b for b in view.blocks.values() if b.name != held), key=lambda b: _distance(view, b)
    )


def _distance(view: View, block: BlockView) -> float:
    """How far a block is from the hand, metres; more where it is harder to get at."""
    away = float(np.linalg.norm(block.position - view.hand))
    return away + {"table": 0.0, "drawer": 1.0, "slider": 2.0}.get(block.place or "", 3.0)
