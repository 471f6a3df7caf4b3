"""Where the time of a collection goes, added up over its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase

from rftf_torchrl.envs.episodes import Episode, environment_of
from rftf_torchrl.nets.evaluate_states import policy_device

_PROCESSES = 4096


class BusyTime:
    """Seconds, calls and rows, which any number of processes add to one piece of shared memory.

    Example:
        >>> busy = BusyTime()
        >>> busy.add(0.5, rows=3)
        >>> busy.add(0.25, rows=1)
        >>> busy.seconds, busy.calls, busy.rows
        (0.75, 2, 4)
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(_PROCESSES, 3, dtype=torch.float64).share_memory_()

    def __deepcopy__(self, memo: Any) -> BusyTime:
        return self

    def add(self, seconds: float, rows: int = 1) -> None:
        """Count one call."""
        place = self._sums[os.getpid() % _PROCESSES]
        place += torch.tensor([seconds, 1, rows], dtype=torch.float64)

    def clear(self) -> None:
        """Begin at zero."""
        self._sums.zero_()

    @property
    def seconds(self) -> float:
        """Their sum."""
        return float(self._sums[:, 0].sum())

    @property
    def calls(self) -> int:
        """Their number."""
        return int(self._sums[:, 1].sum())

    @property
    def rows(self) -> int:
        """Their sum."""
        return int(self._sums[:, 2].sum())


class TimedPolicy(TensorDictModuleBase):
    """A policy whose forward passes are counted, copies in other processes included.

    Args:
        policy: the policy.
        busy: where its time goes.
    """

    def __init__(self, policy: Any, busy: BusyTime) -> None:
        super().__init__()
        self.policy, self.busy = policy, busy
        self.in_keys, self.out_keys = policy.in_keys, policy.out_keys

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Act."""
        begun = time.perf_counter()
        decided: TensorDictBase = self.policy(tensordict)
        if policy_device(self.policy).type == "cuda":
            torch.cuda.synchronize()
        self.busy.add(time.perf_counter() - begun, tensordict.batch_size.numel())
        return decided


@dataclass(frozen=True)
class TimedEnvironments:
    """A function from an episode to its environment, whose steps and resets are counted.

    Args:
        make_env: the function.
        busy: where the time goes.
    """

    make_env: Callable[[Episode], EnvBase]
    busy: BusyTime

    def environment_of(self, episode: Episode) -> Hashable:
        """What names the environment of an episode, see :func:`run_episodes`."""
        return environment_of(self.make_env, episode)

    def __call__(self, episode: Episode) -> EnvBase:
        """The episode's environment."""
        env: Any = self.make_env(episode)
        for name in ("step", "reset"):
            setattr(env, name, self._timed(getattr(env, name)))
        made: EnvBase = env
        return made

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            found = method(*args, **kwargs)
            self.busy.add(time.perf_counter() - begun)
            return found

        return timed
