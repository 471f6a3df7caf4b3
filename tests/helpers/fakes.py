"""A tiny environment that misbehaves on demand, in a module that worker processes can import."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
)
from torch import nn
from torch.distributions import Normal
from torchrl.data import Binary, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.utils import make_composite_from_td

from rftf_torchrl import Episode, SimulatorCrashedError

BAD_SEED = 13


class SeededWalk(EnvBase):
    """Add actions to a position that starts at the episode's seed, for 2 + seed % 3 decisions.

    In the second decision of episode ``BAD_SEED``, ``trouble`` happens: ``"exit"`` ends the
    process, ``"sleep"`` hangs, ``"raise"`` is a programming error, ``"crash"`` is reported. With
    ``"reset"`` the simulator crashes before the first one.
    """

    def __init__(self, trouble: str) -> None:
        super().__init__(batch_size=[])
        self.trouble = trouble
        flag = Binary(shape=[1], dtype=torch.bool)
        self.observation_spec = Composite(
            state=Unbounded([3]),
            episode_seed=Unbounded([1], dtype=torch.int64),
            success=flag.clone(),
            crashed=flag.clone(),
        )
        self.action_spec = Unbounded([1])
        self.reward_spec = Unbounded([1])
        self.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone())
        self.is_open = True

    def _set_seed(self, seed):
        pass

    def _observe(self, *, success=False, crashed=False):
        state = [self.position, float(self.seed), float(self.time)]
        return {
            "state": torch.tensor(state),
            "episode_seed": torch.tensor([self.seed]),
            "success": torch.tensor([success]),
            "crashed": torch.tensor([crashed]),
        }

    def _reset(self, tensordict=None, **kwargs):
        self.seed = 0 if tensordict is None else int(tensordict.get("episode_seed", 0))
        self.position, self.time = float(self.seed), 0
        if self.seed == BAD_SEED and self.trouble == "reset":
            raise SimulatorCrashedError("there is no place for the cup")
        return TensorDict(self._observe())

    def _step(self, tensordict):
        self.position += tensordict["action"].item()
        self.time += 1
        crashed = False
        if self.seed == BAD_SEED and self.time == 2:
            if self.trouble == "exit":
                os._exit(3)
            if self.trouble == "sleep":
                time.sleep(600)
            if self.trouble == "raise":
                raise ValueError("the fake is broken")
            crashed = self.trouble == "crash"
        done = torch.tensor([crashed or self.time == 2 + self.seed % 3])
        out = self._observe(success=bool(done) and self.seed % 2 == 0, crashed=crashed)
        out.update(
            reward=torch.tensor([self.position]),
            done=done,
            terminated=torch.zeros_like(done),
            truncated=done,
        )
        return TensorDict(out)

    def close(self, *, raise_if_closed=True):
        self.is_open = False
        super().close(raise_if_closed=raise_if_closed)


def make_walk(episode: Episode) -> SeededWalk:
    """The task's name is the trouble that its environment makes."""
    return SeededWalk(episode.task)


def make_chunked_walk(episode: Episode) -> SeededWalk:
    """Takes chunks of two actions of three numbers."""
    env = SeededWalk(episode.task)
    env.action_spec = Composite(vla_action=Composite(chunk=Unbounded([2, 3])))
    return env


class Constant(nn.Module):
    """Zeros of any shape, whatever it sees."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, state):
        return state.new_zeros(*state.shape[:-1], *self.shape)


class ManyTasksWalk(SeededWalk):
    """Plays any task: a task's number is how many decisions are added to its episodes."""

    def __init__(self) -> None:
        super().__init__("none")
        self.heard: list[tuple[str, str | None]] = []

    def set_task(self, name: str) -> None:
        self.task = name

    def set_instruction(self, instruction: str | None) -> None:
        self.heard.append((self.task, instruction))

    def _step(self, tensordict):
        out = super()._step(tensordict)
        done = torch.tensor([self.time == 2 + self.seed % 3 + int(self.task)])
        return out.update({"done": done, "truncated": done, "success": done & False})


@dataclass(frozen=True)
class ManyTasksFactory:
    """One environment for all tasks with the same last digit."""

    def __call__(self, episode: Episode) -> ManyTasksWalk:
        return ManyTasksWalk()

    def environment_of(self, episode: Episode) -> int:
        return int(episode.task) % 10


class Playback(EnvBase):
    """Shows recorded observations in turn, moved by what was done before; 2 + seed % 3 decisions.

    Args:
        recorded: observations [N] of any policy.
        chunk: shape of its chunk of actions.
    """

    def __init__(self, recorded: TensorDict, chunk: tuple[int, ...]) -> None:
        super().__init__(batch_size=[])
        self.recorded = recorded
        flag = Binary(shape=[1], dtype=torch.bool)
        self.observation_spec = make_composite_from_td(recorded[0]).update(
            Composite(episode_seed=Unbounded([1], dtype=torch.int64), crashed=flag)
        )
        self.action_spec = Composite(vla_action=Composite(chunk=Unbounded(chunk)))
        self.reward_spec = Unbounded([1])
        self.done_spec = Composite(done=flag.clone(), terminated=flag.clone())

    def _set_seed(self, seed):
        pass

    def _observe(self):
        seen = self.recorded[(self.seed + self.time) % len(self.recorded)]
        seen = seen.apply(lambda entry: entry + self.moved if entry.is_floating_point() else entry)
        rest = {"episode_seed": torch.tensor([self.seed]), "crashed": torch.tensor([False])}
        return seen.update(rest)

    def _reset(self, tensordict=None, **kwargs):
        self.seed = 0 if tensordict is None else int(tensordict.get("episode_seed", 0))
        self.time, self.moved = 0, 0.0
        return self._observe()

    def _step(self, tensordict):
        self.time += 1
        self.moved += tensordict["vla_action", "chunk"].mean().item()
        done = torch.tensor([self.time == 2 + self.seed % 3])
        return self._observe().update(
            {"reward": torch.zeros(1), "done": done, "terminated": torch.zeros_like(done)}
        )


@dataclass(frozen=True)
class PlaybackFactory:
    recorded: TensorDict
    chunk: tuple[int, ...]

    def __call__(self, episode: Episode) -> Playback:
        return Playback(self.recorded, self.chunk)


class Drift(nn.Module):
    """Mean move: weight * position, element by element so that batching changes no bit."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, state):
        loc = self.weight * state[..., :1]
        return loc, torch.full_like(loc, 0.1)


def walk_policy() -> ProbabilisticTensorDictSequential:
    """Gaussian moves around the drift."""
    return ProbabilisticTensorDictSequential(
        TensorDictModule(Drift(), in_keys=["state"], out_keys=["loc", "scale"]),
        ProbabilisticTensorDictModule(
            in_keys=["loc", "scale"], out_keys=["action"], distribution_class=Normal
        ),
    )
