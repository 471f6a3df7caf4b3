"""What the expert may look at: the simulator's true state, with the furniture's geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rftf_torchrl.calvin.expert.geometry import SceneGeometry, scene_geometry
from rftf_torchrl.calvin.simulator import CalvinSimulator
from rftf_torchrl.optional import optional_module

_TABLE = "table"


@dataclass(frozen=True)
class BlockView:
    """One block now.

    Attributes:
        name: colour.
        position: its middle [3], metres.
        rotation: matrix [3, 3]; the first column is the block's long side.
        half_size: half its sides [3].
        touched_links: links of the table that touch it.
        touched_by_robot: whether the robot touches it.
        touched_blocks: colours of the blocks that touch it.
    """

    name: str
    position: np.ndarray
    rotation: np.ndarray
    half_size: np.ndarray
    touched_links: frozenset[str]
    touched_by_robot: bool
    touched_blocks: frozenset[str]

    @property
    def extent(self) -> np.ndarray:
        """Half the sides [3] of the upright box around it."""
        return cast(np.ndarray, np.abs(self.rotation) @ self.half_size)

    @property
    def top(self) -> float:
        """Height of its highest point."""
        return float(self.position[2] + self.extent[2])

    @property
    def lying(self) -> bool:
        """Whether its long side is level."""
        return abs(float(self.rotation[2, 0])) < 0.5

    @property
    def heading(self) -> float:
        """Angle of the long side in the plane; of another side where the block stands on end."""
        side = self.rotation[:, 0] if self.lying else self.rotation[:, 1]
        return float(np.arctan2(side[1], side[0]))

    @property
    def square(self) -> bool:
        """Whether, from above, it can be held across either side."""
        return not self.lying or self.half_size[0] < 0.021

    @property
    def place(self) -> str | None:
        """``"table"``, ``"slider"``, ``"drawer"``, or ``None`` where it touches none of them."""
        for link, place in (("plank_link", "slider"), ("drawer_link", "drawer")):
            if link in self.touched_links:
                return place
        return "table" if "base_link" in self.touched_links else None


class View:
    """The true state of a simulator, refreshed with :meth:`update`.

    Attributes:
        geometry: where the furniture is.
        hand: position [3] between the fingertips.
        euler: the hand's Euler angles [3].
        width: how far the gripper is open, 0 to 0.08.
        gripper: the last gripper command, 1 or -1.
        slider, drawer, switch: positions of the joints.
        blocks: the three blocks by colour.
    """

    def __init__(self, simulator: CalvinSimulator) -> None:
        self.geometry: SceneGeometry = scene_geometry(simulator.scene)
        self.update(simulator)

    def update(self, simulator: CalvinSimulator) -> None:
        """Look again."""
        robot, scene = simulator.robot_obs, simulator.scene_obs
        self.hand = robot[:3].copy()
        self.euler = robot[3:6].copy()
        self.width = float(robot[6])
        self.gripper = float(robot[14])
        self.slider, self.drawer, _, self.switch = (float(value) for value in scene[:4])
        self.blocks = block_views(simulator.info, self.geometry)

    @property
    def held(self) -> BlockView | None:
        """The block between the closed fingers, if any."""
        if self.gripper > 0 or self.width < 0.01:
            return None
        near = min(self.blocks.values(), key=lambda b: np.linalg.norm(b.position - self.hand))
        close = np.linalg.norm(near.position - self.hand) < 0.05
        return near if close and near.touched_by_robot else None


def rotation_class() -> Any:
    """SciPy's ``Rotation``."""
    return optional_module("scipy.spatial.transform", "calvin", "CALVIN's expert").Rotation


def block_views(info: dict[str, Any], geometry: SceneGeometry) -> dict[str, BlockView]:
    """The blocks of calvin_env's info, by colour."""
    scene = info["scene_info"]
    table = scene["fixed_objects"][_TABLE]
    links = {number: name for name, number in table["links"].items()}
    movable = {
        name.removeprefix("block_"): block for name, block in scene["movable_objects"].items()
    }
    colours = {block["uid"]: name for name, block in movable.items()}
    robot = info["robot_info"]["uid"]
    views, rotation = {}, rotation_class()
    for name, block in movable.items():
        touching = {(contact[2], contact[4]) for contact in block["contacts"]}
        bodies = {body for body, _ in touching}
        views[name] = BlockView(
            name=name,
            position=np.array(block["current_pos"]),
            rotation=rotation.from_quat(block["current_orn"]).as_matrix(),
            half_size=np.array([geometry.block_lengths[name], 0.02, 0.02]),
            touched_links=frozenset(links[n] for body, n in touching if body == table["uid"]),
            touched_by_robot=robot in bodies,
            touched_blocks=frozenset(colours[body] for body in bodies & set(colours)),
        )
    return views
