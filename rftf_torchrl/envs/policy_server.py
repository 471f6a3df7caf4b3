"""One policy that decides for many simulators, in batches."""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from statistics import median
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.modules.inference_server import InferenceServer, ThreadingTransport

from rftf_torchrl.envs.packed import Packed, pack, rows, unpack_stacked
from rftf_torchrl.envs.row_noise import decide
from rftf_torchrl.envs.watch_clock import WatchClock
from rftf_torchrl.nets.evaluate_states import policy_device
from rftf_torchrl.policies.call_on_tensors import leaves

NOISE = "noise_seed"
_FIRST_WAIT, _LEAST_WAIT = 0.01, 0.002


class _Decisions:
    """What TorchRL's server takes for a batch of answers."""

    def __init__(self, packed: Packed, count: int) -> None:
        self._rows = rows(packed, count)

    def unbind(self, dim: int) -> list[Packed]:
        return self._rows


class PolicyServer:
    """Decides in a thread of this process, on the policy's device, by TorchRL's server.

    A batch begins when every simulator that plays has asked, or the longest wait is over.

    Args:
        policy: TensorDict policy on any device, in evaluation mode.
        batch: most decisions at once.
        wait: seconds from the first question of a batch to its start at most; ``None`` for half of
            what the policy took for its last batches.
        deterministic: the policy's mean action instead of a sample.
        patience: seconds after which a policy that does not answer counts as hung.
        latencies: the seconds that the policy took for its last batches; those of further ones are
            added.
    """

    def __init__(
        self,
        policy: TensorDictModuleBase,
        *,
        batch: int,
        wait: float | None,
        deterministic: bool,
        patience: float,
        latencies: deque[float],
    ) -> None:
        self._policy, self._batch, self._wait = policy, batch, wait
        self._deterministic, self._patience = deterministic, patience
        device = policy_device(policy).type
        self._autocast = (
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
        )
        self._latencies = latencies
        self._unanswered: dict[Future[Packed], float] = {}
        self._clock, self._last_answer = WatchClock(), 0.0
        self._error: BaseException | None = None
        self._ended = False
        self._engine = InferenceServer(
            self._decide,
            ThreadingTransport(),
            max_batch_size=batch,
            timeout=self._longest_wait(),
            collate_fn=unpack_stacked,
            policy_version_key=None,
        )

    def __enter__(self) -> PolicyServer:
        """Start to answer."""
        self._engine.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End; a policy that hangs is left behind in its thread, and late questions are dropped."""
        self._ended = True
        if self._unanswered:
            self._engine.shutdown()
        else:
            self._engine.shutdown(0.0)  # its thread may still wait for questions, then it ends

    def _decide(self, asked: TensorDictBase) -> _Decisions:
        if self._ended:
            raise RuntimeError("a question came after the collection")
        device, dtype, enabled = self._autocast
        seeds = asked.pop(NOISE).tolist()
        observed = leaves(asked)
        begin = time.monotonic()
        try:
            with torch.autocast(device, dtype=dtype, enabled=enabled):
                decisions = decide(self._policy, observed, seeds, deterministic=self._deterministic)
        except Exception:
            raise
        except BaseException as error:  # ends the engine's thread
            what = f"the thread in which the policy decides was ended by {type(error).__name__}"
            self._error = RuntimeError(what)
            raise
        self._latencies.append(time.monotonic() - begin)
        self._engine.timeout = self._longest_wait()
        return _Decisions(pack(decisions), len(seeds))

    def _longest_wait(self) -> float:
        wait = self._wait
        if wait is None:
            wait = median(self._latencies) / 2 if self._latencies else _FIRST_WAIT
        return max(wait, _LEAST_WAIT)

    def expect(self, playing: int) -> None:
        """Say how many simulators play, for which a batch is worth waiting."""
        self._engine.min_batch_size = max(1, min(playing, self._batch))

    def ask(self, observed: Packed, answer: Callable[[Packed], None]) -> None:
        """Have the decision for an observation handed to ``answer``, in another thread.

        Args:
            observed: what the policy reads, with the seed of its noise.
            answer: takes the decision.
        """

        def finish(future: Future[Packed]) -> None:
            self._last_answer = self._clock()
            self._unanswered.pop(future)
            self._error = self._error or future.exception()
            if future.exception() is None:
                answer(future.result())

        future = self._engine.transport.submit(observed)
        self._unanswered[future] = self._clock()
        future.add_done_callback(finish)

    def stats(self) -> dict[str, float | int]:
        """What TorchRL's server counted, see its ``stats``."""
        counted: dict[str, float | int] = self._engine.stats()
        return counted

    def check(self) -> None:
        """Raise what went wrong in the policy's thread.

        Raises:
            RuntimeError: when the policy hangs, or its thread ended.
            Exception: the policy's own, with its own traceback.
        """
        if self._error is not None:
            raise self._error
        asked = list(self._unanswered.values())
        if not asked:
            return
        if self._clock() - max(self._last_answer, min(asked)) > self._patience:
            thread: Any = self._engine._worker
            frame: Any = sys._current_frames().get(thread.ident or 0)
            where = "".join(traceback.format_stack(frame))
            self._engine.shutdown(0.0)  # it would wait for the thread
            raise RuntimeError(
                f"the policy has not answered for {self._patience:g} s. It is here:\n\n{where}"
            )
