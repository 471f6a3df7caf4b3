"""Where a scene's furniture is: the joint frames of its table, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rftf_torchrl.calvin.settings import Scene, check_scene
from rftf_torchrl.calvin.tasks import BLOCKS

_UP_SLOPE = np.array([0.0, 0.5, np.sqrt(0.75)])
# by scene: button, switch, slider, the slider's limit, drawer, shelf
_PLACES = {
    "A": (-0.28, 0.3, 0.04, 0.28, 0.1, -0.1),
    "B": (0.28, -0.32, 0.228, 0.304, 0.18, 0.08),
    "C": (-0.12, -0.32, 0.2, 0.24, 0.1, 0.08),
    "D": (-0.12, 0.3, 0.04, 0.28, 0.18, -0.1),
}
_SMALL, _MIDDLE, _BIG = 0.02, 0.028, 0.04
_HALF_LENGTHS = {
    "A": (_MIDDLE, _BIG, _SMALL),
    "B": (_SMALL, _BIG, _MIDDLE),
    "C": (_BIG, _SMALL, _MIDDLE),
    "D": (_MIDDLE, _SMALL, _BIG),
}


@dataclass(frozen=True)
class SceneGeometry:
    """Places on a table, world frame, metres.

    The four tables are one table with its parts in other places along x: the meshes are the same.

    Attributes:
        button_x: the middle of the button.
        switch_x: the middle of the switch's bar.
        slider_x: the middle of the sliding door's handle when the door is fully right.
        slider_limit: how far the door goes to the left, the largest value of ``scene_obs[0]``.
        drawer_x: the middle of the drawer.
        shelf_x: the middle of the shelf behind the sliding door.
        block_lengths: half the long side of each block, by colour; the other sides are 0.04.
    """

    button_x: float
    switch_x: float
    slider_x: float
    slider_limit: float
    drawer_x: float
    shelf_x: float
    block_lengths: dict[str, float]

    def button(self) -> np.ndarray:
        """Top of the button, not pressed [3]."""
        return np.array([self.button_x, -0.12, 0.487])

    def switch(self, value: float) -> np.ndarray:
        """Middle of the switch's bar [3] when ``scene_obs[3]`` has this value."""
        return np.array([self.switch_x, 0.018, 0.529]) + value * _UP_SLOPE

    def slider_handle(self, value: float) -> np.ndarray:
        """Middle of the sliding door's handle [3] when ``scene_obs[0]`` has this value."""
        return np.array([self.slider_x - value, 0.016, 0.569])

    def door_span(self, value: float) -> tuple[float, float]:
        """From which to which x the sliding door hides the shelf."""
        middle = self.slider_x - value
        return middle - 0.14, middle + 0.14

    def shelf_span(self) -> tuple[float, float]:
        """From which to which x the shelf reaches."""
        return self.shelf_x - 0.26, self.shelf_x + 0.26

    def drawer_handle(self, value: float) -> np.ndarray:
        """Middle of the drawer's handle [3] when ``scene_obs[1]`` has this value."""
        return np.array([self.drawer_x, -0.25 - value, 0.36])

    def drawer_span(self) -> tuple[float, float]:
        """From which to which x the inside of the drawer reaches."""
        return self.drawer_x - 0.177, self.drawer_x + 0.177

    def drawer_front(self, value: float) -> float:
        """The y of the inner side of the drawer's front."""
        return -0.157 - value


def scene_geometry(scene: Scene) -> SceneGeometry:
    """The furniture of a scene.

    Example:
        >>> scene_geometry("D").slider_handle(0.28).round(3).tolist()
        [-0.24, 0.016, 0.569]

    Raises:
        ValueError: for an unknown scene.
    """
    check_scene(scene)
    return SceneGeometry(*_PLACES[scene], dict(zip(BLOCKS, _HALF_LENGTHS[scene], strict=True)))
