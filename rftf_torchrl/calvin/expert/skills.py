"""Which skill does which task."""

from __future__ import annotations

from rftf_torchrl.calvin.expert import furniture, grasping, handling, placing
from rftf_torchrl.calvin.expert.motions import OPEN, Skill, rise
from rftf_torchrl.calvin.expert.view import View

_KEEPING = ("place_in_slider", "place_in_drawer", "stack_block", "unstack_block")
"""Tasks that begin with what is between the fingers."""


def skill(task: str, view: View, held: str | None = None) -> Skill:
    """One attempt at a task from the present state.

    Args:
        task: CALVIN's name.
        view: refreshed by the caller between two targets.
        held: the block that was in the hand when the task began.
    """
    words = task.split("_")
    if task in _KEEPING:
        if held is not None and view.held is None and task != "unstack_block":
            yield from grasping.pick_up(view, held)
    elif view.held is None or words[:2] != ["lift", view.held.name]:
        yield from grasping.let_go(view)
    match words:
        case ["rotate", name, "block", side]:
            yield from handling.rotate(view, name, side == "left")
        case ["push", name, "block", side]:
            yield from handling.push(view, name, side == "left")
        case ["lift", name, "block", place]:
            yield from handling.lift(view, name, place)
        case ["move", "slider", side]:
            limit = view.geometry.slider_limit if side == "left" else 0.0
            yield from furniture.move_slider(view, limit)
            yield from rise(view, OPEN)
        case ["open", "drawer"]:
            yield from furniture.open_drawer(view)
        case ["close", "drawer"]:
            yield from furniture.close_drawer(view)
            yield from rise(view, OPEN)
        case ["turn", state, "lightbulb"]:
            yield from furniture.set_switch(view, state == "on")
        case ["turn", _, "led"]:
            yield from furniture.press_button(view)
        case ["place", "in", "slider"]:
            yield from placing.place_in_slider(view)
        case ["place", "in", "drawer"]:
            yield from placing.place_in_drawer(view)
        case ["push", "into", "drawer"]:
            yield from handling.push_into_drawer(view)
        case ["stack", "block"]:
            yield from placing.stack(view)
        case ["unstack", "block"]:
            yield from handling.unstack(view)
