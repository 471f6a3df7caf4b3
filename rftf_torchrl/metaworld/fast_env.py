"""Meta-World's own step and reset without unused work, bit for bit the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rftf_torchrl.optional import metaworld_module

_SEEN = 18
_FIRST_OBJECT, _PLACE, _TURN = 4, 3, 4


class FastEnv:
    """Steps and resets an environment of Meta-World.

    Its own step takes twice as long as the physics: it looks bodies up by name, places markers that
    MuJoCo then places again, computes forces that nothing reads, and joins small arrays. Its
    own reset simulates the hand's way twice.

    Args:
        env: the environment. Its reset of the hand, its observation and its test of touch are
            replaced by the ones below, which give the same numbers.
    """

    def __init__(self, env: Any) -> None:
        self._mujoco = metaworld_module("mujoco")
        self._env, self._model, self._data = env, env.model, env.data
        self._hand, self._right, self._left = (
            self._data.body(name).xpos for name in ("hand", "rightclaw", "leftclaw")
        )
        self._low = env.sawyer_observation_space.low
        self._high = env.sawyer_observation_space.high
        self._hand_waits = False
        env._reset_hand = self._reset_hand
        env._get_curr_obs_combined_no_goal = self._hand_and_objects
        env.touching_object = self._touching_object

    def reset(self, start_draws: Callable[[], None]) -> np.ndarray:
        """Start an episode, and give its first observation, float64 [39].

        Meta-World's tasks read positions that were computed before they move their objects, so
        one ``reset_model`` leaves targets and images at the previous episode's places. A second
        one with the same draws settles them, as in Meta-World's own ``reset`` of a fixed vector.
        The first has to move the objects alone, so the hand is simulated in the second only.

        Args:
            start_draws: starts the sequence of random vectors again.
        """
        env = self._env
        for self._hand_waits in (True, False):
            start_draws()
            self._mujoco.mj_resetData(self._model, self._data)
            env.reset_model()
        self._mujoco.mj_forward(self._model, self._data)
        env._prev_obs = self._hand_and_objects()
        observation: np.ndarray = env._get_obs()
        return observation

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Apply an action [4] in [-1, 1]: the observation [39], the reward, and success."""
        env, data = self._env, self._data
        hand = data.mocap_pos[0] + action[:3] * env.action_scale
        data.mocap_pos[0] = hand.clip(env.mocap_low, env.mocap_high)
        data.ctrl[:] = action[3], -action[3]
        self._mujoco.mj_step(self._model, data, nstep=env.frame_skip)
        self._mujoco.mj_forward(self._model, data)
        observation = env._get_obs().clip(self._low, self._high)
        reward, info = env.evaluate_state(observation, action)
        return observation, float(reward), bool(info["success"])

    def _reset_hand(self, steps: int = 50) -> None:
        env, data = self._env, self._data
        data.mocap_pos[0], data.mocap_quat[0] = env.hand_init_pos, (1, 0, 1, 0)
        data.ctrl[:] = -1, 1
        if self._hand_waits:
            self._mujoco.mj_forward(self._model, data)
        else:
            self._mujoco.mj_step(self._model, data, nstep=steps * env.frame_skip)
        env.init_tcp = env.tcp_center

    def _hand_and_objects(self) -> np.ndarray:
        """What an observation says of one moment, float64 [18]."""
        seen = np.zeros(_SEEN)
        apart = self._right - self._left
        seen[:3] = self._hand
        seen[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        places = self._env._get_pos_objects().reshape(-1, _PLACE)
        turns = self._env._get_quat_objects().reshape(-1, _TURN)
        objects = seen[_FIRST_OBJECT:].reshape(-1, _PLACE + _TURN)
        objects[: len(places), :_PLACE], objects[: len(turns), _PLACE:] = places, turns
        return seen

    def _touching_object(self, geom: int) -> bool:
        """Whether both finger pads press on a geom; Meta-World's walks the contacts in Python."""
        data = self._data
        pairs = data.contact.geom
        on_geom = (pairs == geom).any(1)
        for pad in ("leftpad_geom", "rightpad_geom"):
            touching = on_geom & (pairs == data.geom(pad).id).any(1)
            if not sum(data.efc_force[data.contact.efc_address[touching]]) > 0:
                return False
        return True
