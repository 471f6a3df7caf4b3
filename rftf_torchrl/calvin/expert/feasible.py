"""Whether the oracle could find a task done, starting from a state."""

from __future__ import annotations

from typing import Any

from rftf_torchrl.calvin.expert.geometry import scene_geometry
from rftf_torchrl.calvin.expert.view import BlockView, block_views
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.tasks import get_task

_DOOR_TRAVEL = 0.155
_DRAWER_TRAVEL = 0.125
_DRAWER_LIMIT = 0.22
_DRAWER_ROOM = 0.1


def feasible(task: str, info: dict[str, Any], scene: Scene = "D") -> bool:
    """Whether a task makes sense from a state: what it moves is there and has room to move.

    Args:
        task: CALVIN's name.
        info: the simulator's ``info`` at the start of the task.
        scene: the simulator's scene.

    Raises:
        ValueError: for an unknown task or scene.
    """
    get_task(task)
    geometry = scene_geometry(scene)
    state = info["scene_info"]
    slider: float = state["doors"]["base__slide"]["current_state"]
    drawer: float = state["doors"]["base__drawer"]["current_state"]
    blocks = block_views(info, geometry)
    match task.split("_"):
        case ["rotate", *_]:
            return True
        case ["push", name, "block", _]:
            return bool(blocks[name].touched_links or blocks[name].touched_blocks)
        case ["lift", name, "block", place]:
            return blocks[name].place == place
        case ["move", "slider", "left"]:
            return geometry.slider_limit - slider > _DOOR_TRAVEL
        case ["move", "slider", "right"]:
            return slider > _DOOR_TRAVEL
        case ["open", "drawer"]:
            return _DRAWER_LIMIT - drawer > _DRAWER_TRAVEL
        case ["close", "drawer"]:
            return drawer > _DRAWER_TRAVEL
        case ["turn", wanted, lamp]:
            return bool(state["lights"][lamp]["logical_state"] == (wanted == "off"))
        case ["place", "in", place]:
            return _one_held(blocks, info) and (place == "slider" or drawer > _DRAWER_ROOM)
        case ["push", "into", "drawer"]:
            alone = [b for b in blocks.values() if not (b.touched_by_robot or b.touched_blocks)]
            return drawer > _DRAWER_ROOM and any(b.place == "table" for b in alone)
        case ["stack", "block"]:
            return any(not block.touched_blocks for block in blocks.values())
        case _:
            return any(_on_top(block) for block in blocks.values())


def _one_held(blocks: dict[str, BlockView], info: dict[str, Any]) -> bool:
    touched = {contact[2] for contact in info["robot_info"]["contacts"]}
    held = [b for b in blocks.values() if b.touched_by_robot and b.place is None]
    return len(touched) == 1 and len(held) == 1 and not held[0].touched_blocks


def _on_top(block: BlockView) -> bool:
    return bool(block.touched_blocks) and not (block.touched_by_robot or block.place)
