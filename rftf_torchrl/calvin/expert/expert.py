"""A scripted expert for CALVIN's thirty-four tasks."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.calvin.expert.motions import Skill
from rftf_torchrl.calvin.expert.servo import Servo, Target
from rftf_torchrl.calvin.expert.skills import skill
from rftf_torchrl.calvin.expert.view import View
from rftf_torchrl.calvin.simulator import CalvinSimulator
from rftf_torchrl.calvin.tasks import get_task

PUSH_RATE = 0.04
PUSH_STEPS = 4


class CalvinExpert:
    """Does a task by way of waypoints that it takes from the simulator's true state.

    It acts through the relative actions that a policy has, and tries again until the caller stops
    it: it does not know the oracle.

    Args:
        noise: standard deviation of the pushes of :meth:`disturb`, in units of an action.
        seed: seed of the pushes.

    Example:
        >>> from rftf_torchrl import CalvinNotInstalledError, CalvinSimulator
        >>> expert = CalvinExpert()
        >>> try:
        ...     simulator = CalvinSimulator("D")
        ...     expert.start("open_drawer", simulator)
        ...     shape = expert.action(simulator).shape
        ...     simulator.close()
        ... except CalvinNotInstalledError:
        ...     shape = (7,)
        >>> shape
        (7,)
    """

    def __init__(self, *, noise: float = 0.0, seed: int = 0) -> None:
        if noise < 0:
            raise ValueError(f"noise must not be negative, got {noise}")
        self._noise = noise
        self._rng = np.random.default_rng(seed)
        self._push, self._push_left = np.zeros(6), 0
        self._servo = Servo()
        self._task: str | None = None

    def start(self, task: str, simulator: CalvinSimulator) -> None:
        """Take up a task where the simulator is now.

        Raises:
            ValueError: for an unknown task.
        """
        get_task(task)
        self._view = View(simulator)
        self._task = task
        held = self._view.held
        self._held = None if held is None else held.name
        self._skill: Skill = skill(task, self._view, self._held)

    def action(self, simulator: CalvinSimulator) -> np.ndarray:
        """The next action, float64 [7] in [-1, 1], the gripper exactly 1 or -1.

        Raises:
            RuntimeError: before :meth:`start`.
        """
        if self._task is None:
            raise RuntimeError("call start(task, simulator) before action(simulator)")
        self._view.update(simulator)
        return self._servo.action(self._next(self._task), self._view.hand, self._view.euler)

    def disturb(self, action: np.ndarray) -> np.ndarray:
        """The action to execute in place of one from :meth:`action`: now and then a push.

        Demonstrations that execute the push and record the undisturbed action show how to come
        back to the path (DART, Laskey et al. 2017, arXiv 1703.09327). A push begins at one step in
        25 and adds the same Gaussian offset to the six arm dimensions for four steps. Noise at
        every step would keep the expert hovering before each waypoint, and whoever clones it.
        """
        disturbed = action.copy()
        if self._noise and not self._push_left and self._rng.random() < PUSH_RATE:
            self._push = self._noise * self._rng.standard_normal(6)
            self._push_left = PUSH_STEPS
        if self._push_left:
            self._push_left -= 1
            disturbed[:6] = np.clip(action[:6] + self._push, -1.0, 1.0)
            self._servo.also_moved(disturbed[:6] - action[:6])
        return disturbed

    def _next(self, task: str) -> Target:
        for _ in range(2):
            target = next(self._skill, None)
            if target is not None:
                return target
            self._skill = skill(task, self._view, self._held)
        return Target(self._view.hand, self._view.euler, self._view.gripper)
