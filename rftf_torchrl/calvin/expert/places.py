"""Free places for blocks: on the shelf behind the sliding door, and in the drawer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rftf_torchrl.calvin.expert.geometry import SceneGeometry
from rftf_torchrl.calvin.expert.view import BlockView

_HAND = 0.075
_WALL = 0.07


def uncovering(geometry: SceneGeometry, slider: float, x: float) -> float | None:
    """Where the door must go so that the hand fits in at x; ``None`` where it fits now."""
    low, high = geometry.door_span(slider)
    if not low - _HAND < x < high + _HAND:
        return None
    right = geometry.slider_limit if x > geometry.shelf_x else 0.0
    return right if abs(right - slider) > 0.02 else None


def shelf_spot(
    geometry: SceneGeometry, slider: float, blocks: Mapping[str, BlockView], held: str
) -> tuple[float | None, float]:
    """Where on the shelf to put a block.

    Returns:
        Where the door must go first, or ``None``, and the x of the place.
    """
    low, high = geometry.shelf_span()
    others: list[float] = [
        b.position[0] for b in blocks.values() if b.place == "slider" and b.name != held
    ]
    places = np.linspace(low + _WALL, high - _WALL, 41)

    def cost(x: float) -> float:
        door = uncovering(geometry, slider, x) is not None
        crowd = sum(max(0.0, 0.09 - abs(x - other)) for other in others)
        left, right = geometry.door_span(slider)
        room = min(abs(x - left), abs(x - right), 0.14) if not left < x < right else 0.0
        return 3.0 * door + 60.0 * crowd - room - min(x - low, high - x, 0.11)

    best = float(min(places, key=cost))
    return uncovering(geometry, slider, best), best


def drawer_spot(
    geometry: SceneGeometry, drawer: float, blocks: Mapping[str, BlockView], held: str
) -> tuple[float, float]:
    """Where over the open drawer to let go of a block: x and y."""
    low, high = geometry.drawer_span()
    front = geometry.drawer_front(drawer)
    y = float(np.clip((front - 0.18) / 2 - 0.01, front + 0.045, -0.225))
    others = [b.position for b in blocks.values() if b.place == "drawer" and b.name != held]

    def cost(x: float) -> float:
        crowd = sum(max(0.0, 0.09 - float(np.hypot(x - o[0], y - o[1]))) for o in others)
        return 20.0 * crowd + abs(x - geometry.drawer_x)

    return float(min(np.linspace(low + 0.07, high - 0.07, 31), key=cost)), y
