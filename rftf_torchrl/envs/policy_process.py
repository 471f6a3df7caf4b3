"""A copy of a policy that decides in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl.envs.guarded_pool import START_UP_SECONDS, GuardedPool, Line, Lost
from rftf_torchrl.envs.packed import pack, unpack
from rftf_torchrl.envs.row_noise import decide
from rftf_torchrl.nets.evaluate_states import policy_device
from rftf_torchrl.policies.call_on_tensors import Tensors


class _Decider:
    """Decides on the device, with the weights that lie in shared memory."""

    def __init__(self, shared: TensorDictModuleBase, device: torch.device) -> None:
        self._shared = shared
        self._policy = deepcopy(shared).to(device)

    def play(self, job: Any, send: Line) -> None:
        """Sends the decisions."""
        observed, seeds, deterministic, autocast, changed = job
        if changed:
            self._policy.load_state_dict(self._shared.state_dict())
        device, dtype, enabled = autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            decided = decide(self._policy, unpack(observed), seeds, deterministic=deterministic)
        send(pack(decided))

    def close(self) -> None:
        """Nothing is open."""


class PolicyProcess:
    """Decides as :func:`decide` does, beside a learner.

    The process keeps apart what torch and TensorDict have once for all threads: the random
    generators and the interaction type.

    Args:
        shared: on the CPU, its weights in shared memory.
        device: where the process has its copy.
        timeout: seconds without an answer after which the process counts as hung; two minutes at
            least.
    """

    def __init__(
        self, shared: TensorDictModuleBase, device: torch.device, *, timeout: float
    ) -> None:
        self._pool = GuardedPool(
            partial(_Decider, shared, device),
            1,
            timeout=max(timeout, START_UP_SECONDS),
            max_restarts=0,
            preload=__name__,
        )
        self.changed = False

    def __call__(
        self,
        policy: TensorDictModuleBase,
        observed: Tensors,
        seeds: Sequence[int],
        *,
        deterministic: bool,
    ) -> Tensors:
        """The decisions, in the present autocast of the policy's device.

        Raises:
            RuntimeError: when the policy fails, or its process died or hangs.
        """
        device = policy_device(policy).type
        autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        self._pool.submit(0, (pack(observed), seeds, deterministic, autocast, self.changed))
        self.changed, answer = False, None
        while self._pool.busy:
            for _, message in self._pool.wait():
                if isinstance(message, Lost):
                    raise RuntimeError(f"the process in which the policy decides {message.why}")
                answer = message
        return unpack(answer)

    def close(self) -> None:
        """End the process."""
        self._pool.close()
