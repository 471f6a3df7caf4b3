"""A simulator and a policy that only sleep, so that two cores suffice for many of them."""

import time
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Binary, Composite, Unbounded
from torchrl.envs import EnvBase

from rftf_torchrl import Episode


class SleepingEnv(EnvBase):
    """Episodes of ``length`` decisions, each of which takes ``seconds``; so does a reset."""

    def __init__(self, seconds: float, length: int) -> None:
        super().__init__(batch_size=[])
        self.seconds, self.length = seconds, length
        flag = Binary(shape=[1], dtype=torch.bool)
        self.observation_spec = Composite(
            state=Unbounded([8]), episode_seed=Unbounded([1], dtype=torch.int64), crashed=flag
        )
        self.action_spec = Unbounded([4])
        self.reward_spec = Unbounded([1])
        self.done_spec = Composite(done=flag.clone(), terminated=flag.clone())

    def _set_seed(self, seed):
        pass

    def _observe(self, **end):
        begin = time.monotonic()
        seen = TensorDict(
            state=torch.full((8,), float(self.time)),
            episode_seed=torch.tensor([self.seed]),
            crashed=torch.tensor([False]),
            **end,
        )
        time.sleep(max(0.0, self.seconds - (time.monotonic() - begin)))
        return seen

    def _reset(self, tensordict=None, **kwargs):
        self.seed = 0 if tensordict is None else int(tensordict.get("episode_seed", 0))
        self.time = 0
        return self._observe()

    def _step(self, tensordict):
        self.time += 1
        done = torch.tensor([self.time == self.length])
        return self._observe(reward=torch.zeros(1), done=done, terminated=torch.zeros_like(done))


@dataclass(frozen=True)
class SleepingFactory:
    seconds: float
    length: int

    def __call__(self, episode: Episode) -> SleepingEnv:
        return SleepingEnv(self.seconds, self.length)


class Sleep(nn.Module):
    """A batch takes ``seconds`` whatever its size."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, state):
        time.sleep(self.seconds)
        return self.scale * torch.randn(len(state), 4)


def sleeping_policy(seconds: float) -> TensorDictModule:
    return TensorDictModule(Sleep(seconds), in_keys=["state"], out_keys=["action"])
