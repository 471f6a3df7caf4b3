"""What the expert sees: the hand, and the surfaces of all objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rftf_torchrl.libero.expert.servo import nearest, pointing, rotation_vector
from rftf_torchrl.libero.install import libero_module

_SPACING = 0.015
_MOST_PER_EDGE = 24
_ROBOT = ("robot0", "gripper0", "mount0")
_SLIDE = 2  # mujoco.mjtJoint.mjJNT_SLIDE


@dataclass(frozen=True)
class Joint:
    """A part of a fixture that moves.

    Attributes:
        points: on the part [n, 3].
        axis: along which it slides or about which it turns [3].
        anchor: a point of that axis [3].
        slides: whether it slides.
    """

    points: np.ndarray
    axis: np.ndarray
    anchor: np.ndarray
    slides: bool

    def direction(self, place: np.ndarray) -> np.ndarray:
        """Where a place on the part goes as the joint's value grows [3], of length 1."""
        if self.slides:
            return self.axis
        way = np.cross(self.axis, place - self.anchor)
        along: np.ndarray = way / np.linalg.norm(way)
        return along


class Scene:
    """Read a task's simulator.

    Args:
        raw: LIBERO's environment, see :attr:`~rftf_torchrl.LiberoSimulator.raw`.
    """

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.goals: Sequence[Sequence[str]] = raw.parsed_problem["goal_state"]
        self._model, self._data = raw.sim.model._model, raw.sim.data._data
        self._site = raw.robots[0].eef_site_id
        self._left, self._right = (
            self._model.body(f"gripper0_{side}finger").id for side in ("left", "right")
        )
        self._surfaces: dict[int, np.ndarray] = {}
        self._things = [
            body
            for body in range(1, self._model.nbody)
            if self._model.body(body).name.split("_")[0] not in _ROBOT
        ]
        self.base: np.ndarray = self._data.body("robot0_base").xpos.copy()
        self._home = self.rotation
        self.home_yaw = float(np.arctan2(self._home[1, 0], self._home[0, 0]))

    @property
    def position(self) -> np.ndarray:
        """The place between the fingertips [3]."""
        place: np.ndarray = self._data.site_xpos[self._site].copy()
        return place

    @property
    def rotation(self) -> np.ndarray:
        """The hand's rotation [3, 3], see :class:`Target`."""
        fingers = self._data.xpos[self._left] - self._data.xpos[self._right]
        return pointing(self._data.site_xmat[self._site].reshape(3, 3)[:, 2], fingers)

    @property
    def opening(self) -> float:
        """How far the fingers are apart."""
        apart = self._data.xpos[self._left] - self._data.xpos[self._right]
        return float(np.linalg.norm(apart))

    def reachable(self, rotation: np.ndarray) -> np.ndarray:
        """The same rotation of the hand [3, 3], the way round that its joints allow."""
        return nearest(self._home, self.rotation, rotation)

    def angle_to(self, rotation: np.ndarray) -> float:
        """How far the hand has to turn, radians."""
        way = rotation_vector(self.reachable(rotation) @ self.rotation.T)
        return float(np.linalg.norm(way))

    def fulfilled(self, goal: Sequence[str]) -> bool:
        """Whether a goal is."""
        return bool(self.raw._eval_predicate(goal))

    def is_site(self, name: str) -> bool:
        """Whether a name is that of a region, not of a thing."""
        return name in self.raw.object_sites_dict

    def place(self, name: str) -> np.ndarray:
        """Where a thing's origin or a region's middle is [3]."""
        where = (
            self._data.site(name).xpos if self.is_site(name) else self._data.xpos[self._body(name)]
        )
        copy: np.ndarray = where.copy()
        return copy

    def upright(self, name: str) -> np.ndarray:
        """The axis of a thing's own frame that is nearest to upright, pointing up [3]."""
        axes = self._data.xmat[self._body(name)].reshape(3, 3)
        nearest = int(np.abs(axes[2]).argmax())
        axis: np.ndarray = axes[:, nearest] * np.sign(axes[2, nearest])
        return axis

    def joint(self, name: str) -> Joint:
        """What moves when a drawer, a door or a knob does, by the name that goals call it."""
        owner = (
            self.raw.object_sites_dict[name] if self.is_site(name) else self.raw.get_object(name)
        )
        number = self._model.joint(owner.joints[0]).id
        body = int(self._model.jnt_bodyid[number])
        return Joint(
            points=self._points(sorted(self._with_parts(body))),
            axis=self._data.xaxis[number].copy(),
            anchor=self._data.xanchor[number].copy(),
            slides=self._model.jnt_type[number] == _SLIDE,
        )

    def moves(self, region: str) -> bool:
        """Whether a region is of something that opens and closes."""
        return bool(self.raw.object_sites_dict[region].joints)

    def _body(self, name: str) -> int:
        return int(self.raw.obj_body_id[name])

    def _with_parts(self, root: int) -> set[int]:
        bodies = {root}
        for body in range(root + 1, self._model.nbody):
            if self._model.body_parentid[body] in bodies:
                bodies.add(body)
        return bodies

    def points(self, name: str) -> np.ndarray:
        """Points [n, 3] on and in a thing."""
        return self._points(sorted(self._with_parts(self._body(name))))

    def others(self, names: Iterable[str]) -> np.ndarray:
        """Points [n, 3] of everything but the robot and some things; names of regions count not."""
        left_out: set[int] = set()
        for name in names:
            if not self.is_site(name):
                left_out |= self._with_parts(self._body(name))
        return self._points([body for body in self._things if body not in left_out])

    def _points(self, bodies: Sequence[int]) -> np.ndarray:
        model, data = self._model, self._data
        found = [np.zeros((0, 3))]
        for body in bodies:
            first = model.body_geomadr[body]
            for geom in range(first, first + model.body_geomnum[body]):
                if model.geom_contype[geom] or model.geom_conaffinity[geom]:
                    if geom not in self._surfaces:
                        self._surfaces[geom] = self._sample(geom)
                    turned = self._surfaces[geom] @ data.geom_xmat[geom].reshape(3, 3).T
                    found.append(turned + data.geom_xpos[geom])
        return np.concatenate(found)

    def _sample(self, geom: int) -> np.ndarray:
        """Points of a geom in its own frame: a mesh's vertices, else a grid in its box."""
        geoms = libero_module("mujoco").mjtGeom
        model = self._model
        kind, size = model.geom_type[geom], model.geom_size[geom]
        if kind == geoms.mjGEOM_PLANE:
            return np.zeros((0, 3))
        if kind == geoms.mjGEOM_MESH:
            mesh = model.geom_dataid[geom]
            first = model.mesh_vertadr[mesh]
            vertices: np.ndarray = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
            return vertices
        if kind == geoms.mjGEOM_SPHERE:
            size = np.repeat(size[0], 3)
        elif kind in (geoms.mjGEOM_CYLINDER, geoms.mjGEOM_CAPSULE):
            size = size[[0, 0, 1]]
        counts = np.clip(np.ceil(2 * size / _SPACING).astype(int) + 1, 2, _MOST_PER_EDGE)
        edges = [np.linspace(-half, half, n) for half, n in zip(size, counts, strict=True)]
        return np.stack(np.meshgrid(*edges, indexing="ij"), -1).reshape(-1, 3)
