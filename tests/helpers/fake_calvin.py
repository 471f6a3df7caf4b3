"""A simulator that plays a recorded episode, and starts that worker processes can import."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from rftf_torchrl import SimulatorCrashedError, default_states

TRACE = dict(np.load(Path(__file__).parents[1] / "calvin" / "trace_close_drawer.npz"))
"""robot_obs [35, 15], scene_obs [35, 24], actions [34, 7] of an expert that closes the drawer."""

LENGTH = len(TRACE["actions"])
DEADLY_SEED = 13


class FakeSimulator:
    """Plays the trace over and over; ``close_drawer`` is done as in CALVIN, 0.12 m further in."""

    def __init__(self, scene):
        self.scene = scene
        self.resets, self.actions, self.drawn = [], [], []
        self.crash_at = None
        self.broken = False
        self.closed = False
        self._show(0)

    def _show(self, frame):
        self.frame = frame
        self.robot_obs = TRACE["robot_obs"][frame % (LENGTH + 1)]
        self.scene_obs = TRACE["scene_obs"][frame % (LENGTH + 1)]
        self.info = {"drawer": self.scene_obs[1]}

    def reset(self, robot_obs=None, scene_obs=None):
        if self.broken:
            raise SimulatorCrashedError("no physics server")
        self.resets.append((robot_obs, scene_obs))
        self._show(0)

    def step(self, action):
        self.actions.append(action)
        if len(self.actions) == self.crash_at:
            raise SimulatorCrashedError("the state is not finite")
        self._show(self.frame + 1)

    def achieved(self, start_info, tasks):
        done = self.scene_obs[1] - start_info["drawer"] < -0.12
        return {"close_drawer"} & set(tasks) if done else set()

    def _draw(self, name, shape, dtype):
        self.drawn.append((name, self.frame))
        return np.full(shape, self.frame, dtype)

    def picture(self, size):
        return self._draw("picture", (3, size, size), np.uint8)

    def wrist_picture(self, size):
        return self._draw("wrist_picture", (3, size, size), np.uint8)

    def depth(self, size):
        return self._draw("depth", (size, size), np.float32)

    def wrist_depth(self, size):
        return self._draw("wrist_depth", (size, size), np.float32)

    def close(self):
        self.closed = True


def trace_start(task, seed):
    """Every episode starts where the recorded one does."""
    return TRACE["robot_obs"][0], TRACE["scene_obs"][0]


def deadly_states(task, seed):
    """Kill the process at one episode, as the kernel does when memory runs out."""
    if seed == DEADLY_SEED:
        os.kill(os.getpid(), signal.SIGKILL)
    return default_states("train")(task, seed)
