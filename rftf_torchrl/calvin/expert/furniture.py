"""Skills for the sliding door, the drawer, the switch and the button."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.calvin.expert.motions import CLOSED, REST_YAW, Skill, by, move, rise, travel
from rftf_torchrl.calvin.expert.servo import tool
from rftf_torchrl.calvin.expert.view import View

_DOWN = tool(np.pi / 2)
_FORWARD = tool(np.pi / 2, 0.85)
_SWITCH_SIDE = 0.02
_SWITCH_ON, _SWITCH_OFF = 0.1, -0.012
_UNDER, _FRONT = by(0.0, -0.02, -0.03), by(0.0, -0.06, 0.045)
_OVER, _ABOVE = by(0.0, -0.006, 0.034), by(0.0, 0.0, 0.03)


def move_slider(view: View, value: float) -> Skill:
    """Push the door's handle from the side until ``scene_obs[0]`` is about ``value``."""
    side = 1.0 if value > view.slider else -1.0
    offset = np.array([0.04 * side, -0.016, -0.012])
    start = view.geometry.slider_handle(view.slider) + offset
    before = start + by(0.025 * side, -0.03, 0.03)
    yield from travel(view, before, _DOWN, CLOSED, height=0.57, within=0.02)
    yield from move(view, start + by(0.012 * side, 0, 0), _DOWN, CLOSED, within=0.012)
    end = view.geometry.slider_handle(value) + offset - by(0.01 * side, 0, 0)
    yield from move(view, end, _DOWN, CLOSED)


def open_drawer(view: View, value: float = 0.22) -> Skill:
    """Hook the handle from behind and pull until ``scene_obs[1]`` is about ``value``."""
    behind = by(0.0, 0.038, 0.018)
    hook = view.geometry.drawer_handle(view.drawer) + behind
    yield from travel(view, hook + by(0, 0, 0.07), _DOWN, CLOSED, within=0.015)
    yield from move(view, hook, _DOWN, CLOSED)
    yield from move(view, view.geometry.drawer_handle(value) + behind, _DOWN, CLOSED)
    yield from rise(view, CLOSED, 0.48)


def close_drawer(view: View) -> Skill:
    """Push the handle from before."""
    before = by(0.0, -0.05, 0.005)
    start = view.geometry.drawer_handle(view.drawer) + before
    yield from travel(view, start, _DOWN, CLOSED, within=0.02)
    yield from move(view, view.geometry.drawer_handle(0.0) + before * 0.4, _DOWN, CLOSED)


def press_button(view: View) -> Skill:
    """Push the button down and let it go."""
    top = view.geometry.button()
    yield from travel(view, top + by(0, 0, 0.05), tool(REST_YAW), CLOSED, within=0.015)
    yield from move(view, top + by(0, 0, -0.015), tool(REST_YAW), CLOSED, limit=20)
    yield from move(view, top + by(0, 0, 0.05), tool(REST_YAW), CLOSED, within=0.015)


def set_switch(view: View, on: bool) -> Skill:
    """Push the bar up from below, or down from above, with the fingers pointing forward."""
    bar = view.geometry.switch(view.switch) - by(_SWITCH_SIDE, 0, 0)
    end = view.geometry.switch(_SWITCH_ON if on else _SWITCH_OFF) - by(_SWITCH_SIDE, 0, 0)
    touch, before = (_UNDER, _FRONT) if on else (_OVER, _ABOVE)
    yield from travel(view, bar + touch + before, _FORWARD, CLOSED, within=0.02)
    yield from move(view, bar + touch, _FORWARD, CLOSED, within=0.012, limit=25)
    yield from move(view, end + touch, _FORWARD, CLOSED, limit=30)
    yield from move(view, view.hand + before, _FORWARD, CLOSED, within=0.02)
