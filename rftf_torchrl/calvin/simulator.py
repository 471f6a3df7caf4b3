"""One CALVIN scene with bitwise resets: the plain-NumPy side of :class:`CalvinEnv`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from omegaconf import OmegaConf

from rftf_torchrl.calvin.clone_files import unseen_model
from rftf_torchrl.calvin.install import require_calvin_env
from rftf_torchrl.calvin.settings import (
    Scene,
    camera_settings,
    check_scene,
    env_settings,
    task_settings,
)
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.files import write_text
from rftf_torchrl.leftovers import temporary_folder
from rftf_torchrl.optional import quiet

ACTION_DIM = 7
ROBOT_DIM = 15
SCENE_DIM = 24
_LIGHTS = slice(4, 6)
_LOADING_SEED = 0


def _make_env(root: Path, scene: Scene, unseen: Path) -> Any:
    from calvin_env.envs.play_table_env import PlayTableSimEnv
    from calvin_env.robot import robot

    class Env(PlayTableSimEnv):
        """Loads everything into its own physics client, and is closed once and silently.

        calvin_env draws the robot's base into client 0, whichever it is, and an environment that
        was closed disconnects a later one with the same number when it is collected.

        A reset without the robot's looks, which nothing but a camera needs, takes less than half of
        the time.
        """

        drawn = False

        def load(self) -> None:
            file = self.robot.filename if self.drawn else str(unseen)
            with patch.object(robot, "p", self.p), patch.object(self.robot, "filename", file):
                super().load()

        def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            """As calvin_env's step, but it looks once, and not through cameras."""
            self.robot.apply_action(action)
            for _ in range(self.action_repeat):
                self.p.stepSimulation(physicsClientId=self.cid)
            self.scene.step()
            return self.look()

        def look(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            """What it observes and its info."""
            robot_obs, robot_info = self.robot.get_observation()
            observation = {"robot_obs": robot_obs, "scene_obs": self.scene.get_obs()}
            return observation, {"robot_info": robot_info, "scene_info": self.scene.get_info()}

        def __del__(self) -> None:
            pass

    settings = env_settings(root, scene)
    model = unseen_model(root / "data" / settings["robot_cfg"]["filename"])
    write_text(unseen, model)
    settings["robot_cfg"]["_convert_"] = "all"  # plain lists: an index of OmegaConf's takes 20 us
    env = Env(**settings)
    env.scene.surfaces = OmegaConf.to_container(env.scene.surfaces)
    return env


class CalvinSimulator:
    """Reset, step, draw and judge one CALVIN scene.

    A reset is bitwise: the same arguments give the same numbers and images, independent of what
    ran before. Simulators in one process do not disturb each other, but each takes tens of MB.

    Args:
        scene: ``"A"``, ``"B"``, ``"C"`` or ``"D"``.

    Attributes:
        scene: the scene's letter.
        robot_obs: float64 [15]: 0:3 hand position in metres, 3:6 its Euler angles, 6 gripper
            width, 7:14 joint angles, 14 last gripper action.
        scene_obs: float64 [24]: slider, drawer, button, switch, lightbulb, led, then position and
            Euler angles of three blocks in the order of :attr:`blocks`.
        info: calvin_env's description of this moment, contacts included; the oracle compares two.

    Raises:
        CalvinNotInstalledError: when calvin_env, or a file of the scene in it, is missing.
        ValueError: for an unknown scene.

    Example:
        >>> import numpy as np
        >>> from rftf_torchrl import CalvinNotInstalledError, CalvinSimulator
        >>> try:
        ...     simulator = CalvinSimulator("D")
        ...     simulator.reset()
        ...     simulator.step(np.array([0, 0, 1, 0, 0, 0, 1.0]))
        ...     shape = simulator.robot_obs.shape
        ...     simulator.close()
        ... except CalvinNotInstalledError:
        ...     shape = (15,)
        >>> shape
        (15,)
    """

    def __init__(self, scene: Scene = "D") -> None:
        check_scene(scene)
        self.scene = scene
        self._root = require_calvin_env()
        from calvin_env.envs.tasks import Tasks
        from pybullet import error

        self._engine_error: type[Exception] = error
        # PyBullet keeps what it read by the file's name, so there is one name for all resets.
        self._files = ExitStack()
        folder = self._files.enter_context(temporary_folder())
        with quiet():
            self._env = _make_env(self._root, scene, folder / "robot.urdf")
        self._oracle = Tasks(task_settings(self._root).tasks)
        self._cameras: dict[tuple[str, int], Any] = {}
        self._drawn: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        self._closed = False
        self._since: tuple[Any, list[np.ndarray]] = (None, None), []
        self.reset()

    @property
    def blocks(self) -> tuple[str, ...]:
        """Colours of the three blocks in the order in which ``scene_obs`` holds them."""
        return tuple(block.name.removeprefix("block_") for block in self._env.scene.movable_objects)

    def block_positions(self) -> dict[str, np.ndarray]:
        """Position in metres [3] of each block, by colour."""
        poses = self.scene_obs[6:].reshape(3, 6)
        return {name: poses[index, :3].copy() for index, name in enumerate(self.blocks)}

    def reset(
        self, robot_obs: np.ndarray | None = None, scene_obs: np.ndarray | None = None
    ) -> None:
        """Put robot and scene into a state, independent of what ran before.

        Equal to ``reset(robot_obs, scene_obs)`` of a calvin_env that was just built, except that
        the last gripper action is taken from ``robot_obs[14]`` instead of always being 1. For this
        everything is loaded again: the physics engine's own ``restoreState`` keeps the order of
        old contacts, so that the same actions end elsewhere. Until an image is asked for, the robot
        is loaded without its looks, which takes less than half of the time.

        Args:
            robot_obs: float [15]; ``None`` for the robot's rest position.
            scene_obs: float [24], blocks in the order of :attr:`blocks`; ``None`` for everything
                closed and off, with the blocks where calvin_env puts them under one fixed seed.

        Raises:
            ValueError: for a wrong shape, a value that is not finite, or a light that is neither
                0 nor 1.
            SimulatorCrashedError: when the physics engine died.
        """
        if robot_obs is not None:
            robot_obs = _checked("robot_obs", robot_obs, ROBOT_DIM)
        if scene_obs is not None:
            scene_obs = _checked("scene_obs", scene_obs, SCENE_DIM)
            if not np.isin(scene_obs[_LIGHTS], (0.0, 1.0)).all():
                raise ValueError(
                    "scene_obs[4:6], lightbulb and led, must be 0 or 1, got "
                    f"{scene_obs[_LIGHTS].tolist()}"
                )
        closed = robot_obs is not None and robot_obs[-1] < 0
        env = self._env
        with self._engine_errors(), quiet():
            env.seed(_LOADING_SEED)
            env.scene.np_random = env.np_random
            env.load()
            env.robot.gripper_action = -1 if closed else 1
            env.reset(robot_obs, scene_obs)
            self._look(*env.look())
        self._since = (robot_obs, scene_obs), []

    def step(self, action: np.ndarray) -> None:
        """Carry out one relative action for one control step of 1/30 s, without drawing.

        Args:
            action: float [7] in [-1, 1]: hand displacement in units of 0.02 m, rotation in units
                of 0.05 rad, and the gripper: exactly 1 (open) or -1 (close).

        Raises:
            ValueError: for a wrong shape or a value outside of what is said above.
            SimulatorCrashedError: when the physics engine died or became unstable.
        """
        action = _checked("action", action, ACTION_DIM)
        beyond = np.flatnonzero(np.abs(action) > 1)
        if beyond.size:
            raise ValueError(
                f"action[{beyond[0]}] must be in [-1, 1], got {action[beyond[0]]}: clip it"
            )
        if abs(action[-1]) != 1:
            raise ValueError(
                f"action[6], the gripper, must be 1 (open) or -1 (close), got {action[-1]}"
            )
        with self._engine_errors():
            self._look(*self._env.step(action))
        if not self._env.drawn:
            self._since[1].append(action)

    def _look(self, observation: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        robot_obs, scene_obs = observation["robot_obs"], observation["scene_obs"]
        if not (np.isfinite(robot_obs).all() and np.isfinite(scene_obs).all()):
            raise SimulatorCrashedError(f"CALVIN scene {self.scene}: the state is not finite")
        self.robot_obs: np.ndarray = np.asarray(robot_obs, dtype=np.float64)
        self.scene_obs: np.ndarray = scene_obs
        self.info: dict[str, Any] = info
        self._drawn.clear()

    @contextmanager
    def _engine_errors(self) -> Iterator[None]:
        """Turns the physics engine's errors into ours."""
        if self._closed:
            raise RuntimeError("this simulator is closed; make a new one")
        try:
            yield
        except self._engine_error as error:
            raise SimulatorCrashedError(f"CALVIN scene {self.scene}: {error}") from error

    def achieved(self, start_info: dict[str, Any], tasks: Collection[str]) -> set[str]:
        """Which of the tasks calvin_env's oracle finds done between ``start_info`` and now.

        Args:
            start_info: ``info`` at the start of the subtask.
            tasks: names of tasks.

        Raises:
            ValueError: for a name that the oracle does not know.
        """
        unknown = sorted(set(tasks) - set(self._oracle.tasks))
        if unknown:
            raise ValueError(
                f"unknown CALVIN task {unknown[0]!r}; choose from {', '.join(self._oracle.tasks)}"
            )
        return cast(set[str], self._oracle.get_task_info_for_set(start_info, self.info, set(tasks)))

    def picture(self, size: int) -> np.ndarray:
        """The static camera's present image, uint8 [3, size, size]."""
        return self._draw("static", size)[0]

    def wrist_picture(self, size: int) -> np.ndarray:
        """The gripper camera's present image, uint8 [3, size, size]."""
        return self._draw("gripper", size)[0]

    def depth(self, size: int) -> np.ndarray:
        """Distances from the static camera in metres, float32 [size, size]."""
        return self._draw("static", size)[1]

    def wrist_depth(self, size: int) -> np.ndarray:
        """Distances from the camera at the gripper in metres, float32 [size, size]."""
        return self._draw("gripper", size)[1]

    def _draw(self, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
        key = name, size
        if not self._env.drawn:
            self._show_robot()
        if key not in self._drawn:
            if key not in self._cameras:
                self._cameras[key] = self._make_camera(name, size)
            with self._engine_errors():
                picture, depth = self._cameras[key].render()
            picture = np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.uint8)
            self._drawn[key] = picture, np.asarray(depth, dtype=np.float32)
        picture, depth = self._drawn[key]
        return picture.copy(), depth.copy()

    def _show_robot(self) -> None:
        """Give the robot its looks from now on: it is loaded, and does what it did, once more."""
        start, actions = self._since
        self._env.drawn = True
        try:
            self.reset(*start)
            for action in actions:
                self.step(action)
        except BaseException:
            self._env.drawn, self._since = False, (start, actions)
            raise

    def _make_camera(self, name: str, size: int) -> Any:
        from hydra.utils import instantiate

        if size < 1:
            raise ValueError(f"the size of an image must be at least 1, got {size}")
        settings = camera_settings(self._root, name, size)
        robot = self._env.robot.robot_uid
        return instantiate(settings, cid=self._env.cid, robot_id=robot, objects=None)

    def close(self) -> None:
        """Free the physics engine."""
        if not self._closed:
            with quiet(), suppress(self._engine_error):
                self._env.close()
            self._files.close()
            self._closed = True


def _checked(name: str, value: np.ndarray, length: int) -> np.ndarray:
    value = np.array(value, dtype=np.float64)
    if value.shape != (length,):
        raise ValueError(f"{name} must have the shape ({length},), got {value.shape}")
    bad = np.flatnonzero(~np.isfinite(value))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] is not finite: {value[bad[0]]}")
    return value
