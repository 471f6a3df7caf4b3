"""Resets and actions for CalvinEnv, and what it then shows of the recorded episode."""

from __future__ import annotations

import torch
from fake_calvin import TRACE
from tensordict import TensorDict

from rftf_torchrl import state_vector


def start(env, seed):
    return env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))


def chunk(size=8, gripper=1.0):
    actions = torch.zeros(size, 7)
    actions[:, -1] = gripper
    return TensorDict({("vla_action", "chunk"): actions})


def flags(step):
    """The flags that are set."""
    names = ("success", "done", "terminated", "truncated", "crashed")
    return {name for name in names if step[name].item()}


def seen(frame, privileged=True):
    state = state_vector(TRACE["robot_obs"][frame], TRACE["scene_obs"][frame], "D", privileged)
    return torch.from_numpy(state)
