"""A Gymnasium environment of two lines: right of 1 is success, left of -1 is failure."""

import gymnasium
import numpy as np


class Line(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-0.5, 0.5, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.place = 0.0

    def _seen(self):
        return np.array([self.place], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.2, 0.2)
        return self._seen(), {}

    def step(self, action):
        self.place = float(np.clip(self.place + action[0], -2, 2))
        won = self.place > 1
        return self._seen(), 0.0, won or self.place < -1, False, {"success": won}


gymnasium.register("Line-v0", Line)
