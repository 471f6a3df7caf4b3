"""One LIBERO task, seeded to the bit, with images: the plain-NumPy side of :class:`LiberoEnv`."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args
from unittest.mock import patch

import numpy as np

from rftf_torchrl.envs.gl import select_gl_backend
from rftf_torchrl.envs.physics import warnings_of_unstable_physics
from rftf_torchrl.envs.renderer import FastRenderer
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.libero.install import libero_module
from rftf_torchrl.libero.suites import get_task, task_file
from rftf_torchrl.optional import quiet

ACTION_DIM = 7
SETTLING_STEPS = 10
CAMERA = "agentview"
WRIST_CAMERA = "robot0_eye_in_hand"
_REST = np.array([0.0] * 6 + [-1.0])  # stand still, gripper open
_ATTEMPTS = 100

Pictures = Literal["exact", "plain", "fast"]
_DRAWING: dict[Pictures, dict[str, Any]] = {
    "exact": {"cell": 0.0, "effects": True},
    "plain": {"cell": 0.0},
    "fast": {"cell": 0.005},
}
PICTURES: tuple[Pictures, ...] = get_args(Pictures)


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """NumPy's global random numbers, from which LIBERO draws, begin at a seed inside the block."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


class LiberoSimulator:
    """Step, reset, draw and judge one task.

    A reset is bitwise: the same arguments give the same numbers and images, independent of what ran
    before. They equal those of the first reset of a new LIBERO environment, which compiles its
    model again. In tasks that begin with something open, closed or turned on, LIBERO's further
    resets draw other places for the same seed, as each adds to the list of what is drawn.

    A simulator takes 1.0 GB, with images 1.6 GB.

    Args:
        suite: the suite.
        task: the task's name.
        pictures: how images are drawn. ``"exact"``: equal to LIBERO's own. ``"plain"``: without
            multisampling, reflections and sky. ``"fast"``: and with meshes thinned out to 5 mm.
        render: whether images will be asked for.

    Attributes:
        raw: LIBERO's environment, one of robosuite's, for experts.
        observed: LIBERO's observations after the last step, by its own names.
        start: MuJoCo's positions at the start of the episode, before the scene settled.

    Raises:
        ValueError: for an unknown suite, task or way to draw.
        LiberoNotInstalledError: when LIBERO is missing.
        NoOpenGLBackendError: when images are asked for and nothing can draw them.
    """

    def __init__(
        self, suite: str, task: str, *, pictures: Pictures = "exact", render: bool = True
    ) -> None:
        if pictures not in PICTURES:
            raise ValueError(f"pictures must be one of {', '.join(PICTURES)}, got {pictures!r}")
        self.task = get_task(suite, task)
        if render:
            select_gl_backend()
        control = libero_module("libero.libero.envs.env_wrapper").ControlEnv
        with numpy_seed(0), quiet(), self._as_compiled():
            self._control = control(
                bddl_file_name=str(task_file(suite, task)),
                use_camera_obs=False,
                has_offscreen_renderer=False,
                hard_reset=False,
                ignore_done=True,
            )
        self.raw = self._control.env
        # Compiling adds what draws joints once more, and a hard reset compiles before it draws.
        self.raw.object_property_initializers *= 2
        self.raw.sim.reset = self._reset_data
        self._unstable = warnings_of_unstable_physics()
        self._drawing = _DRAWING[pictures]
        self._renderers: dict[int, FastRenderer] = {}
        self.observed: Mapping[str, np.ndarray] = {}
        self.start = np.zeros(0)

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel``."""
        return self.raw.sim.model._model

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData``."""
        return self.raw.sim.data._data

    def reset(self, seed: int, state: np.ndarray | None = None) -> None:
        """Start an episode and let the scene settle for ten control steps, as evaluations do.

        Args:
            seed: from which LIBERO draws where fixtures stand and objects lie.
            state: simulator state [D] to set after that.

        Raises:
            SimulatorCrashedError: when the physics became unstable, or no place was found.
        """
        with numpy_seed(seed):
            self._place()
        for robot in self.raw.robots:  # it outlives robosuite's reset
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        if state is not None:
            self._control.set_init_state(state)
        self.start = self.data.qpos.copy()
        for _ in range(SETTLING_STEPS):
            self.step(_REST)

    @contextmanager
    def _as_compiled(self) -> Iterator[None]:
        """Keeps where fixtures stand in a model that is compiled inside the block."""
        base = libero_module("robosuite.environments.base").MujocoEnv
        compile_model = base._initialize_sim

        def keep(raw: Any, *args: Any) -> None:
            compile_model(raw, *args)
            model = raw.sim.model._model
            self._compiled = model.body_pos.copy(), model.body_quat.copy()

        with patch.object(base, "_initialize_sim", keep):
            yield

    def _reset_data(self) -> None:
        """What robosuite's hard reset leaves before it places anything, without compiling."""
        mujoco = libero_module("mujoco")
        self.model.body_pos[:], self.model.body_quat[:] = self._compiled
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)

    def _place(self) -> None:
        no_place = libero_module("robosuite.utils.errors").RandomizationError
        for _ in range(_ATTEMPTS):
            try:
                self.raw.reset()
                return
            except no_place:
                continue
        raise SimulatorCrashedError(
            f"LIBERO task {self.task.name!r}: no place for all objects in {_ATTEMPTS} draws"
        )

    def step(self, action: np.ndarray) -> bool:
        """Carry out one action [7] for 1/20 s and tell whether the task is solved.

        Raises:
            SimulatorCrashedError: when the physics became unstable.
        """
        with self._known_stages_skipped():
            observed, _, done, _ = self.raw.step(np.clip(action.astype(np.float64), -1.0, 1.0))
        if self.data.warning.number[self._unstable].any():
            raise SimulatorCrashedError(f"LIBERO task {self.task.name!r}: unstable physics")
        self.observed = observed
        return bool(done)

    @contextmanager
    def _known_stages_skipped(self) -> Iterator[None]:
        """Computes positions and velocities once per physics step, where robosuite does it thrice.

        Its solver of contacts still runs three times, as it starts from where it ended.
        """
        mujoco, sim = libero_module("mujoco"), self.raw.sim
        known = False

        def forward() -> None:
            nonlocal known
            if not known:
                mujoco.mj_step1(self.model, self.data)
                known = True
            mujoco.mj_forwardSkip(self.model, self.data, mujoco.mjtStage.mjSTAGE_VEL, True)

        def step(with_udd: bool = True) -> None:
            nonlocal known
            mujoco.mj_step2(self.model, self.data)
            known = False

        sim.forward, sim.step = forward, step
        try:
            yield
        finally:
            del sim.forward, sim.step

    def picture(self, size: int, camera: str = CAMERA) -> np.ndarray:
        """The present image of a camera as policies get it, rotated by 180 degrees, uint8 [3,
        size, size].

        LIBERO's own images are upside down. After the rotation they stand upright, and left and
        right are swapped.
        """
        if size not in self._renderers:
            self._renderers[size] = FastRenderer(
                self.model, size, CAMERA, hidden_groups=(0,), **self._drawing
            )
        upright = self._renderers[size].render(self.data, camera)
        return np.ascontiguousarray(upright[:, :, ::-1])

    def close(self) -> None:
        """Free the simulator's memory and its OpenGL contexts."""
        while self._renderers:
            self._renderers.popitem()[1].close()
        if hasattr(self, "raw"):
            self._control.close()
            del self.raw, self._control
            gc.collect()  # robosuite's objects refer to each other
