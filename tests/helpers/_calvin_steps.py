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


def walk(simulator, expert, tasks, *, max_steps=360, on_step=None):
    """Do tasks until one fails, and return the steps that each done one took."""
    done = []
    for index, task in enumerate(tasks):
        start = simulator.info
        expert.start(task, simulator)
        for step in range(1, max_steps + 1):
            action = expert.action(simulator)
            if on_step is not None:
                on_step(index, task, action)
            simulator.step(expert.disturb(action))
            if simulator.achieved(start, [task]):
                done.append(step)
                break
        else:
            break
    return done
