"""Collect a fixed list of episodes in worker processes that may crash or hang."""

from __future__ import annotations

import logging
import multiprocessing
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from copy import deepcopy
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase

from rftf_torchrl import keys
from rftf_torchrl.envs.episodes import Episode, EpisodeResult, environment_of, run_episodes
from rftf_torchrl.envs.shared_weights import share_weights
from rftf_torchrl.nets.evaluate_states import eval_mode, policy_device

logger = logging.getLogger(__name__)

_START_UP_SECONDS = 120.0


class TooManyCrashesError(RuntimeError):
    """Worker processes died or hung more often than ``max_restarts`` allows."""


def _pack(trajectory: TensorDictBase) -> dict[tuple[str, ...] | str, np.ndarray]:
    flat = trajectory.flatten_keys(".")
    return {key: value.numpy() for key, value in flat.items() if isinstance(value, torch.Tensor)}


def _unpack(arrays: dict[str, np.ndarray]) -> TensorDictBase:
    length = len(next(iter(arrays.values())))
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    return TensorDict(tensors, batch_size=[length]).unflatten_keys(".")


def _serve(connection: Connection, make_env, policy) -> None:
    torch.set_num_threads(1)
    envs: dict[Any, EnvBase] = {}
    try:
        connection.send(("ready", -1, None))
        while (job := connection.recv()) is not None:
            episodes, deterministic, seed = job
            torch.manual_seed(seed)
            results = run_episodes(
                make_env,
                policy,
                episodes,
                deterministic=deterministic,
                envs=envs,
                on_start=lambda index: connection.send(("start", index, None)),
            )
            for result in results:
                connection.send(("done", result.index, _pack(result.trajectory)))
    except (KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except Exception as error:
        where = traceback.format_exc()
        connection.send(("error", -1, f"{type(error).__name__}: {error}\n\nIn the worker: {where}"))
    finally:
        for env in envs.values():
            env.close()


class _Worker:
    def __init__(self, context, position: int, arguments: tuple) -> None:
        self.position = position
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.remaining: dict[int, Episode] = {}
        self.running: set[int] = set()
        self.ready = False
        self.last_message = time.monotonic()

    def patience(self, timeout: float) -> float:
        """Seconds of silence to bear; loading the libraries counts for more than a step."""
        return timeout if self.ready else max(timeout, _START_UP_SECONDS)

    def submit(self, episodes: dict[int, Episode], deterministic: bool, seed: int) -> None:
        self.remaining = dict(episodes)
        self.running = set()
        self.last_message = time.monotonic()
        streams = np.random.SeedSequence([seed, self.position, len(episodes)])
        noise = int(streams.generate_state(1)[0])
        with suppress(OSError):  # a worker that died meanwhile is found when waiting for it
            self.connection.send((list(episodes.items()), deterministic, noise))

    def stop(self, patience: float = 5.0) -> None:
        """Let an idle worker close its environments; kill one that is busy or does not answer."""
        if not self.remaining:
            with suppress(OSError):
                self.connection.send(None)
                self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.connection.close()


class EpisodeCollector:
    """Run lists of episodes and return complete trajectories.

    Three things differ from TorchRL's collectors, which return a number of frames: the list of
    episodes decides what is collected, so that short (successful) episodes are not
    over-represented, the same list gives the same batch when a run is resumed, and an evaluation
    is a list too; a worker whose simulator dies or hangs is replaced, and the episodes it was
    running are dropped and counted, never taken for failures; every task gets its share.

    Args:
        make_env: picklable function from an :class:`Episode` to the environment of its task; with
            a method ``environment_of(episode)`` where one environment plays several tasks, see
            :func:`run_episodes`.
        policy: TensorDict policy on any device. Workers hold a CPU copy in shared memory, which
            :meth:`update_policy_weights_` refreshes.
        workers: number of processes; 0 runs in this process (no protection against crashes).
        copy_policy: whether to act with a CPU copy. False acts with the policy itself, on its
            device: for a large policy on a GPU, with 0 workers.
        timeout: seconds without any sign of life from a worker before it counts as hung; a worker
            that is still starting has two minutes at least.
        max_restarts: how many dead or hung workers to replace before giving up.

    Attributes:
        crashed: episodes dropped so far.
        env_steps: simulator decisions so far.
    """

    def __init__(
        self,
        make_env: Callable[[Episode], EnvBase],
        policy: torch.nn.Module,
        *,
        workers: int = 2,
        copy_policy: bool = True,
        timeout: float = 120.0,
        max_restarts: int = 10,
    ) -> None:
        for name, value in (("workers", workers), ("max_restarts", max_restarts)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if timeout <= 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
        if workers and not copy_policy:
            raise ValueError(
                f"copy_policy=False acts in this process, and there are {workers} workers: set "
                "workers=0, or copy the policy"
            )
        self._policy = self._copy = policy
        if copy_policy:
            self._copy = share_weights(deepcopy(policy).to("cpu").eval().requires_grad_(False))
        self._make_env = make_env
        self._envs: dict[Any, EnvBase] = {}
        self._timeout = timeout
        self._restarts_left = max_restarts
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
        self._context = multiprocessing.get_context(method)
        if method:
            self._context.set_forkserver_preload(["rftf_torchrl.envs.collector"])
        self._workers = [self._new_worker(position) for position in range(workers)]
        self._closed = False
        self.crashed = 0
        self.env_steps = 0

    def _new_worker(self, position: int) -> _Worker:
        return _Worker(self._context, position, (self._make_env, self._copy))

    def update_policy_weights_(self) -> None:
        """Copy the policy's present weights to the workers."""
        if self._copy is self._policy:
            return
        self._copy.load_state_dict(self._policy.state_dict())

    def collect(
        self,
        episodes: Sequence[Episode],
        *,
        deterministic: bool = False,
        seed: int = 0,
        on_episode: Callable[[EpisodeResult], None] | None = None,
    ) -> TensorDictBase:
        """Run the episodes to their ends.

        Args:
            episodes: what to run.
            deterministic: mean actions instead of samples.
            seed: seed of the policy's noise, 0 or more; the same list, weights, seed and number of
                workers give the same batch, unless a worker died.
            on_episode: called with each episode as it finishes, e.g. to advance a progress bar.

        Returns:
            TensorDict [N]: the trajectories one after another, in the order of ``episodes``, with
            ``("collector", "traj_ids")`` int64 [N] = index into ``episodes``. Crashed episodes
            are missing and counted in ``crashed``.

        Raises:
            ValueError: when the list is empty, or the policy's action has other sizes than the
                environment's (with workers, this text in a RuntimeError).
            TooManyCrashesError: when workers keep dying.
            RuntimeError: when every episode crashed, a worker met a programming error, or the
                collector is closed, which it also is after any exception on the way.
        """
        if self._closed:
            raise RuntimeError("this collector is closed; make a new one")
        if not episodes:
            raise ValueError("the list of episodes is empty: there is nothing to collect")
        done: dict[int, TensorDictBase] = {}
        jobs = dict(enumerate(episodes))
        source = self._in_workers if self._workers else self._in_process
        try:
            for result in source(jobs, deterministic, seed):
                if result.trajectory["next", keys.CRASHED].any():
                    self.crashed += 1
                else:
                    done[result.index] = result.trajectory
                    self.env_steps += len(result.trajectory)
                if on_episode is not None:
                    on_episode(result)
        except BaseException:
            self.close()
            raise
        if not done:
            raise RuntimeError(f"all {len(jobs)} episodes crashed: nothing was collected")
        parts = []
        for index in sorted(done):
            part = done[index]
            part.set(keys.TRAJECTORY, torch.full(part.batch_size, index, dtype=torch.int64))
            parts.append(part)
        return torch.cat(parts)

    def _in_process(self, jobs, deterministic, seed):
        where = policy_device(self._copy)
        devices = [where] if where.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), eval_mode(self._copy):
            torch.manual_seed(seed)
            yield from run_episodes(
                self._make_env,
                self._copy,
                list(jobs.items()),
                deterministic=deterministic,
                envs=self._envs,
            )

    def _in_workers(self, jobs, deterministic, seed):
        counts: dict[Hashable, int] = {}
        shares: list[dict[int, Episode]] = [{} for _ in self._workers]
        for index, episode in jobs.items():
            name = environment_of(self._make_env, episode)
            turn = counts.get(name, len(counts))
            counts[name] = turn + 1
            shares[turn % len(shares)][index] = episode
        for worker, share in zip(self._workers, shares, strict=True):
            worker.submit(share, deterministic, seed)
        while any(worker.remaining for worker in self._workers):
            busy = {w.connection: w for w in self._workers if w.remaining}
            for connection in wait(list(busy), timeout=1.0):
                worker = busy.pop(connection)
                result = self._receive(worker, deterministic, seed)
                if result is not None:
                    yield result
            for worker in busy.values():
                patience = worker.patience(self._timeout)
                if time.monotonic() - worker.last_message > patience:
                    self._replace(worker, f"hung for {patience:g} s", deterministic, seed)

    def _receive(self, worker: _Worker, deterministic: bool, seed: int) -> EpisodeResult | None:
        try:
            kind, index, payload = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(1.0)
            why = f"died with exit code {worker.process.exitcode}"
            self._replace(worker, why, deterministic, seed)
            return None
        worker.last_message = time.monotonic()
        if kind == "ready":
            worker.ready = True
            return None
        if kind == "error":
            raise RuntimeError(f"a collector worker failed: {payload}")
        if kind == "start":
            worker.running.add(index)
            return None
        worker.running.discard(index)
        del worker.remaining[index]
        return EpisodeResult(index, _unpack(payload))

    def _replace(self, worker: _Worker, why: str, deterministic: bool, seed: int) -> None:
        lost = worker.running
        self.crashed += len(lost)
        left = {i: e for i, e in worker.remaining.items() if i not in lost}
        logger.warning("a simulator process %s; %d episodes are dropped", why, len(lost))
        worker.stop()
        if self._restarts_left == 0:
            raise TooManyCrashesError(
                f"a simulator process {why} and no restart is left; {self.crashed} episodes were "
                "dropped in all. Look at the simulator's own log, or raise max_restarts."
            )
        self._restarts_left -= 1
        fresh = self._new_worker(worker.position)
        self._workers[worker.position] = fresh
        if left:
            fresh.submit(left, deterministic, seed)

    def close(self) -> None:
        """Stop the workers and close the environments."""
        for worker in self._workers:
            worker.stop()
        for env in self._envs.values():
            env.close()
        self._workers, self._envs, self._closed = [], {}, True

    def __enter__(self) -> EpisodeCollector:
        return self

    def __exit__(self, *exception) -> None:
        self.close()
