"""Simulators, a controller and policies for chains, which worker processes can import."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Binary, Composite, Unbounded

from rftf_torchrl import SimulatorCrashedError, keys
from rftf_torchrl.calvin.tasks import TASKS
from rftf_torchrl.keys import CHUNK


def needs(task, scene_obs):
    """Actions that a task takes: 3 to 22, from the task and the state in which it begins."""
    return 3 + (TASKS[task].id * 7 + int(abs(scene_obs.sum()) * 1000)) % 20


class FakeSimulator:
    """A task is done after as many actions as it needs, if their first element is positive.

    ``trouble`` happens at the first step of a chain whose yaws ``trouble_at`` picks: ``"crash"``,
    ``"exit"``, ``"sleep"``, ``"raise"``; with a ``marker`` only as long as that file is missing.
    """

    def __init__(self, trouble=None, trouble_at=None, marker=None):
        self.trouble, self.trouble_at = trouble, trouble_at
        self.marker = None if marker is None else Path(marker)
        self.closed = False
        self.resets = []

    def reset(self, robot_obs, scene_obs):
        self.first = scene_obs.copy()
        self.resets.append(self.first)
        self.robot_obs, self.scene_obs = robot_obs, scene_obs.copy()
        self.info = {"work": 0, "scene": self.scene_obs.copy()}

    def step(self, action):
        if self.trouble is not None and np.array_equal(self.first, self.trouble_at):
            self._misbehave()
        work = self.info["work"] + int(action[0] > 0)
        self.scene_obs[6] += 1e-3 * action[1]
        self.info = {"work": work, "scene": self.scene_obs.copy()}

    def _misbehave(self):
        if self.marker is not None:
            if self.marker.exists():
                return
            self.marker.touch()
        if self.trouble == "exit":
            os._exit(3)
        if self.trouble == "sleep":
            time.sleep(600)
        if self.trouble == "raise":
            raise KeyError("the fake is broken")
        raise SimulatorCrashedError("the fake crashed")

    def achieved(self, start_info, tasks):
        (task,) = tasks
        done = self.info["work"] - start_info["work"] >= needs(task, start_info["scene"])
        return {task} if done else set()

    def close(self):
        self.closed = True


class Worker:
    """A controller that works at all tasks but one."""

    def __init__(self, lazy_at="stack_block"):
        self.lazy_at = lazy_at

    def start(self, task, simulator):
        self.task, self.count = task, 0

    def action(self, simulator):
        self.count += 1
        work = 1.0 if self.task != self.lazy_at else -1.0
        return np.array([work, np.sin(self.count), 0, 0, 0, 0, 1.0])


class FakeChainEnv:
    """What :class:`CalvinEnv` offers to an evaluation of chains, around the fake simulator."""

    def __init__(self, simulator=None, chunk_size=4, horizon=1000):
        self.simulator = simulator or FakeSimulator()
        self.chunk_size, self.horizon = chunk_size, horizon
        flag = Binary(shape=[1], dtype=torch.bool)
        self.observation_spec = Composite(
            {
                "observation": Composite(state=Unbounded([2])),
                keys.TASK_ID: Unbounded([1], dtype=torch.int64),
                keys.SUCCESS: flag,
                keys.CRASHED: flag.clone(),
            }
        )
        self.action_keys = [CHUNK]
        self.full_action_spec = Composite(vla_action=Composite(chunk=Unbounded([chunk_size, 7])))
        self.done_keys = ["done"]
        self.spoken = []

    def continue_chain(self, task, instruction=None):
        self.task, self.decisions = task, 0
        self.spoken.append(instruction)
        self.start_info = self.simulator.info
        return self._look(success=False, crashed=False)

    def _look(self, *, success, crashed):
        state = torch.tensor([self.simulator.scene_obs[6], float(self.decisions)])
        return TensorDict(
            {
                "observation": {"state": state.float()},
                keys.TASK_ID: torch.tensor([TASKS[self.task].id]),
                keys.SUCCESS: torch.tensor([success]),
                keys.CRASHED: torch.tensor([crashed]),
                "done": torch.tensor([success or crashed or self.decisions >= self.horizon]),
            }
        )

    def step(self, tensordict):
        executed, success, crashed = 0, False, False
        try:
            for action in tensordict[CHUNK].numpy():
                executed += 1
                self.simulator.step(action)
                if self.simulator.achieved(self.start_info, {self.task}):
                    success = True
                    break
        except SimulatorCrashedError:
            crashed = True
        self.decisions += 1
        after = self._look(success=success, crashed=crashed)
        after["executed"] = torch.arange(self.chunk_size) < executed
        return tensordict.set("next", after)

    def close(self):
        self.simulator.close()


class Noisy(nn.Module):
    """Works with probability 0.8 an action; counts decisions and resets."""

    def __init__(self, chunk_size=4, chance=0.8):
        super().__init__()
        self.chance = nn.Parameter(torch.tensor(chance))
        self.chunk_size = chunk_size
        self.decisions = 0

    def forward(self, state):
        self.decisions += 1
        chunk = torch.zeros(*state.shape[:-1], self.chunk_size, 7)
        draws = torch.rand(chunk.shape[:-1])
        chunk[..., 0] = torch.where(draws < self.chance, 1.0, -1.0)
        chunk[..., 1] = state[..., 1:] + draws
        return chunk


class ChainPolicy(TensorDictModule):
    """The noisy module with a memory that must be forgotten at the start of each task."""

    def __init__(self, **arguments):
        super().__init__(Noisy(**arguments), in_keys=[("observation", "state")], out_keys=[CHUNK])
        self.resets = 0

    def reset(self):
        self.resets += 1
        self.module.decisions = 0


def make_env(chunk_size=4, horizon=1000, **trouble):
    return FakeChainEnv(FakeSimulator(**trouble), chunk_size, horizon)
