"""One Meta-World task, seeded, with images: the plain-NumPy side of :class:`MetaWorldEnv`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.episodes import Split
from rftf_torchrl.envs.gl import select_gl_backend
from rftf_torchrl.envs.physics import warnings_of_unstable_physics
from rftf_torchrl.envs.renderer import FastRenderer
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.metaworld.fast_env import FastEnv
from rftf_torchrl.metaworld.goals import GoalSampler
from rftf_torchrl.optional import metaworld_module

CAMERA = "corner2"
_CAMERA_POSITION = (0.75, 0.075, 0.7)
_HAND = 4
_OBJECT_AND_GOAL = 6


def _task_class(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classes = metaworld_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    return classes[f"{name}-v3-goal-observable"]


class MetaWorldSimulator:
    """Step, reset and draw one task.

    Args:
        task: which task.
        split: ``"train"`` or ``"test"`` initial states.
        render: whether images will be asked for.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        render: bool = True,
    ) -> None:
        self.task = task
        if render:
            select_gl_backend()
        self._env = _task_class(task.name)(seed=0)
        self._unstable = warnings_of_unstable_physics()
        self._warnings = self._env.data.warning.number
        self._env.model.cam_pos[self._env.model.camera(CAMERA).id] = _CAMERA_POSITION
        space = self._env._random_reset_space
        self._goals = GoalSampler(space.low, space.high, split)
        self._env._get_state_rand_vec = self._goals.draw
        self._fast = FastEnv(self._env)
        # a goal that is drawn apart from the object can be seen by its marker only
        self._show_goal = len(space.low) == _OBJECT_AND_GOAL
        self._renderers: dict[int, FastRenderer] = {}
        self.state = np.zeros(39)
        self._reward: float | None = None

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel``."""
        return self._env.model

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData``."""
        return self._env.data

    @property
    def proprioception(self) -> np.ndarray:
        """Hand position in metres and gripper opening in [0, 1], float64 [4]."""
        return self.state[:_HAND]

    def reset(self, episode_seed: int) -> None:
        """Start the episode that belongs to this seed, whatever ran before."""
        self.state = self._fast.reset(lambda: self._goals.reseed(self.task.id, episode_seed))
        self._reward = None

    def start_vectors(self, episode_seed: int, count: int = 16) -> np.ndarray:
        """The first vectors that a reset to this seed draws, float64 [count, D].

        The episode starts from one of them: the first, unless the task finds object and goal too
        close to each other and draws again.
        """
        self._goals.reseed(self.task.id, episode_seed)
        return np.stack([self._goals.draw() for _ in range(count)])

    @property
    def dense_reward(self) -> float:
        """Meta-World's own reward of the present state and the last action, 0 to 10."""
        if self._reward is None:
            self._reward = float(self._env.evaluate_state(self.state, np.zeros(4))[0])
        return self._reward

    def step(self, action: np.ndarray) -> bool:
        """Apply one action [4] for one simulator step and tell whether the task is solved.

        MuJoCo answers unstable physics with a warning and puts the scene back to its start. The
        episode would continue from there unnoticed, so the warning counters since the reset are
        checked.

        Raises:
            SimulatorCrashedError: when the physics became unstable.
        """
        state, reward, success = self._fast.step(action.clip(-1.0, 1.0))
        if self._warnings[self._unstable].any():
            raise SimulatorCrashedError(f"Meta-World task {self.task.name!r}: unstable physics")
        self.state, self._reward = state, reward
        return success

    def picture(self, size: int) -> np.ndarray:
        """The camera's present image, uint8 [3, size, size]."""
        if size not in self._renderers:
            markers = (self.model.site(index).name for index in range(self.model.nsite))
            hidden = () if self._show_goal else tuple(name for name in markers if "goal" in name)
            self._renderers[size] = FastRenderer(
                self.model, size, CAMERA, flip=True, hidden_sites=hidden
            )
        return self._renderers[size].render(self.data)

    def close(self) -> None:
        """Free the OpenGL contexts."""
        while self._renderers:
            self._renderers.popitem()[1].close()
        self._env.close()
