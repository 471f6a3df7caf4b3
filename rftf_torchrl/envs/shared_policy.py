"""One policy for simulators in several processes: copies of it, or itself, which answers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy

import numpy as np
import torch
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey

from rftf_torchrl.envs.episodes import Actor, LocalActor
from rftf_torchrl.envs.packed import pack, unpack
from rftf_torchrl.envs.policy_server import NOISE, PolicyServer
from rftf_torchrl.envs.shared_weights import share_weights
from rftf_torchrl.envs.workers import START_UP_SECONDS, Line
from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.policies.call_on_tensors import Tensors

_LATENCIES = 9


class ServedActor:
    """Has the policy's server decide."""

    def __init__(self, in_keys: Sequence[NestedKey]) -> None:
        self.in_keys = in_keys
        self.line: Line | None = None

    def episode(self) -> AbstractContextManager[None]:
        """Nothing; the server decides for several episodes."""
        return nullcontext()

    def ask(self, observed: Tensors, noise: int, deterministic: bool) -> Callable[[], Tensors]:
        """Asks the server, which knows whether the decision is deterministic."""
        assert self.line is not None, "the line of the job that is being done"
        answer = self.line.ask(pack({**observed, NOISE: torch.from_numpy(np.array(noise))}))
        return lambda: unpack(answer())


def connect(actor: Actor | None, line: Line) -> None:
    """Lets an actor ask over the line of the job that is being done, if it has to ask."""
    if isinstance(actor, ServedActor):
        actor.line = line


class SharedPolicy:
    """A policy for simulators in several processes.

    Args:
        policy: TensorDict policy on any device.
        workers: the number of processes; 0 for this one.
        serve: whether the policy itself decides, on its device, in batches; otherwise it is a CPU
            copy in shared memory.
        batch: most decisions at once; ``None`` for the number of workers.
        wait: see :class:`PolicyServer`.
        timeout: seconds after which a policy that does not answer counts as hung; two minutes at
            least.

    Attributes:
        acting: the policy or its copy.
        actor: decides, in this process or a worker.
    """

    def __init__(
        self,
        policy: TensorDictModuleBase,
        *,
        workers: int,
        serve: bool,
        batch: int | None,
        wait: float | None,
        timeout: float,
    ) -> None:
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1 decision, got {batch}")
        if wait is not None and not 0 <= wait < math.inf:
            raise ValueError(f"wait must be 0 or more seconds, got {wait}")
        self.acting = policy
        if not serve:
            self.acting = share_weights(deepcopy(policy).to("cpu").eval().requires_grad_(False))
        served, self._copied = serve and workers > 0, not serve
        if served and hasattr(policy, "reset"):
            raise ValueError(
                "the policy has a method reset(), so it remembers its earlier decisions, but a "
                "served policy decides for several simulators in turn: let it read what was before "
                "from the observation, as ObservationHistory writes it, or set "
                "collector.policy=copy"
            )
        self.actor: Actor = ServedActor(policy.in_keys) if served else LocalActor(self.acting)
        self._batch = max(workers, 1) if batch is None else batch
        self._wait, self._patience = wait, max(timeout, START_UP_SECONDS)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    @contextmanager
    def server(self, deterministic: bool) -> Iterator[PolicyServer | None]:
        """Yields who answers the workers, if they have to ask.

        Where the policy itself decides, it is in evaluation mode, and the generator gets its state
        back. Copies leave both alone: a thread may collect while another learns.

        Args:
            deterministic: the policy's mean actions instead of samples.
        """
        if self._copied:
            yield None
            return
        with torch.random.fork_rng(devices=[]), eval_mode(self.acting):
            if not isinstance(self.actor, ServedActor):
                yield None
                return
            server = PolicyServer(
                self.acting,
                batch=self._batch,
                wait=self._wait,
                deterministic=deterministic,
                patience=self._patience,
                latencies=self._latencies,
            )
            with server:
                yield server
