"""Collect a fixed list of episodes in worker processes that may crash or hang."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from copy import deepcopy
from functools import partial
from threading import RLock
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.envs import EnvBase

from rftf_torchrl import keys
from rftf_torchrl.envs.episodes import (
    Actor,
    Episode,
    EpisodePlayer,
    EpisodeResult,
    LocalActor,
    environment_of,
    run_episodes,
)
from rftf_torchrl.envs.guarded_pool import (
    START_UP_SECONDS,
    GuardedPool,
    Line,
    Lost,
    Processes,
    Question,
    SignsOfLife,
)
from rftf_torchrl.envs.packed import pack, unpack
from rftf_torchrl.envs.policy_server import NOISE, PolicyServer
from rftf_torchrl.envs.ray_actors import RayActors
from rftf_torchrl.envs.shared_weights import share_weights
from rftf_torchrl.policies.call_on_tensors import Tensors, leaves

logger = logging.getLogger(__name__)


class _ServedActor:
    """Has the policy's server decide."""

    def __init__(self, in_keys: Sequence[NestedKey]) -> None:
        self.in_keys = in_keys
        self.line: Line | None = None

    def episode(self) -> AbstractContextManager[None]:
        """Nothing; the server decides for several episodes."""
        return nullcontext()

    def __call__(self, observed: Tensors, noise: int, deterministic: bool) -> Tensors:
        """The answer; whether it is deterministic, the server knows."""
        assert self.line is not None, "the line of the job that is being done"
        return unpack(self.line.ask({**pack(observed), NOISE: np.array(noise)}))


class _Player:
    """Plays single episodes in a worker process."""

    def __init__(self, make_env: Callable[[Episode], EnvBase], actor: Actor) -> None:
        self._actor = actor
        self._player = EpisodePlayer(make_env, actor)

    def load(self, weights: Mapping[str, Any]) -> None:
        """Gives a copy of the policy other weights."""
        assert isinstance(self._actor, LocalActor), "a served policy is not copied"
        self._actor.load(weights)

    def play(self, job: Any, send: Line) -> None:
        """Sends None when an episode has begun, and its trajectory at the end."""
        if isinstance(self._actor, _ServedActor):
            self._actor.line = send
        index, episode, deterministic, seed, dropped = job
        send(None)
        self._player.drop(dropped)
        alive = SignsOfLife(send)
        trajectory = self._player.play(
            index, episode, deterministic=deterministic, seed=seed, alive=alive
        )
        send(pack(leaves(trajectory)))

    def close(self) -> None:
        """Closes the environments."""
        self._player.close()


class _Queue:
    """Which episode a worker plays next: one in an environment that it has, where there is one.

    A worker has at most one environment more than its share.

    Args:
        names: of the environment of each episode, by index.
        held: by worker, the names of its environments, those used last at the end.
    """

    def __init__(self, names: Mapping[int, Hashable], held: list[list[Hashable]]) -> None:
        self._waiting: dict[Hashable, deque[int]] = {}
        for index, name in names.items():
            self._waiting.setdefault(name, deque()).append(index)
        self._names, self._held = names, held
        self._room = -(-len(self._waiting) // len(held)) + 1

    def __len__(self) -> int:
        return sum(len(indices) for indices in self._waiting.values())

    def take(self, place: int) -> tuple[int, Hashable | None] | None:
        """The index of an episode and the environment to close for it, or nothing for now."""
        held = self._held[place]
        holders = Counter(name for names in self._held for name in names)
        left = [name for name, indices in self._waiting.items() if indices]
        name = next((name for name in left if name in held), None)
        dropped = None
        if name is None:
            name = min(left, key=holders.__getitem__)
            if len(held) >= self._room:
                if holders[name]:
                    return None
                dropped = held.pop(0)
        else:
            held.remove(name)
        held.append(name)
        return self._waiting[name].popleft(), dropped

    def put_back(self, index: int) -> None:
        """An episode that did not begin is the next of its environment."""
        self._waiting[self._names[index]].appendleft(index)


class EpisodeCollector:
    """Run lists of episodes and return complete trajectories.

    TorchRL's collectors return a number of frames. This one differs in three ways:

    - The list of episodes decides what is collected. Short (successful) episodes are not
      over-represented, and the same list gives the same batch when a run is resumed. An
      evaluation is such a list too.
    - A worker whose simulator dies or hangs is replaced. The episodes it was running are dropped
      and counted; they never count as failures.
    - Every task gets its share.

    Args:
        make_env: picklable function from an :class:`Episode` to the environment of its task; with
            a method ``environment_of(episode)`` where one environment plays several tasks, see
            :func:`run_episodes`.
        policy: TensorDict policy on any device.
        workers: number of processes, each of which plays one episode at a time; 0 runs in this
            process, one episode after another (no protection against crashes).
        engine: ``"process"``: on this machine. ``"ray"``: as actors of a Ray cluster, each of which
            asks for one CPU. That is the cluster to which this process is connected, or that
            ``ray start`` or ``RAY_ADDRESS`` says, or one on this machine, which is started for it
            and ends with this process.
        gpus: with ``"ray"``, GPUs or a share of one for each worker, for a renderer.
        serve: whether the policy itself decides, on its device, in batches for all workers, by
            TorchRL's :class:`~torchrl.modules.inference_server.InferenceServer`. Otherwise each
            worker decides with a CPU copy, which :meth:`update_policy_weights_` refreshes.
        batch: with ``serve``, most decisions at once; ``None`` for the number of workers.
        wait: with ``serve``, seconds for which a batch waits for workers that have not asked yet;
            ``None`` for half of what the policy took for its last batches.
        timeout: seconds without any sign of life from a worker before it counts as hung; a worker
            that is still starting has two minutes at least.
        max_restarts: how many dead or hung workers to replace before giving up.

    Attributes:
        crashed: episodes dropped so far.
        env_steps: simulator decisions so far.
        server_stats: with ``serve``, what the server counted in the last collection: its requests
            and batches, their mean size, and latencies in milliseconds.
    """

    def __init__(
        self,
        make_env: Callable[[Episode], EnvBase],
        policy: TensorDictModuleBase,
        *,
        workers: int = 2,
        engine: str = "process",
        gpus: float = 0.0,
        serve: bool = False,
        batch: int | None = None,
        wait: float | None = None,
        timeout: float = 120.0,
        max_restarts: int = 10,
    ) -> None:
        for name, value in (("workers", workers), ("max_restarts", max_restarts)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if engine not in ("process", "ray"):
            raise ValueError(f"engine must be 'process' or 'ray', got {engine!r}")
        if engine == "ray" and not workers:
            raise ValueError("engine='ray' needs 1 or more workers, got 0")
        if not 0 <= gpus < math.inf:
            raise ValueError(f"gpus must be 0 or more, got {gpus}")
        if gpus and engine != "ray":
            raise ValueError(f"gpus={gpus} is for engine='ray'; processes share all GPUs")
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1 decision, got {batch}")
        if wait is not None and not 0 <= wait < math.inf:
            raise ValueError(f"wait must be 0 or more seconds, got {wait}")
        self._policy = policy
        self._acting = policy
        if not serve:
            copy = deepcopy(policy).to("cpu").eval().requires_grad_(False)
            self._acting = share_weights(copy) if engine == "process" else copy
        actor = _ServedActor(policy.in_keys) if serve else LocalActor(self._acting)
        self._serve, self._wait, self._timeout = serve, wait, timeout
        self._batch = max(workers, 1) if batch is None else batch
        self._make_env = make_env
        self._envs: dict[Any, EnvBase] = {}
        make_player = partial(_Player, make_env, actor)
        self._actors = RayActors(make_player, workers, gpus) if engine == "ray" else None
        start = self._actors or Processes(make_player, preload=__name__)
        self._pool = GuardedPool(start, workers, timeout=timeout, max_restarts=max_restarts)
        self._held: list[list[Hashable]] = [[] for _ in range(workers)]
        self._closed, self._collecting = False, RLock()
        self.crashed = 0
        self.env_steps = 0
        self.server_stats: dict[str, float | int] = {}

    def update_policy_weights_(self) -> None:
        """Copy the policy's present weights to the workers; a served policy needs no copy."""
        if not self._serve:
            self._acting.load_state_dict(self._policy.state_dict())
            if self._actors is not None:
                self._actors.share(self._acting.state_dict())

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
            seed: seed of the policy's noise, 0 or more. The noise of a decision comes from the
                seed, the episode's place in the list and the decision's number. So the same list,
                weights and seed give the same batch for any number of workers. Where a worker
                died, they give the rest of that batch.
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
        try:
            with self._collecting, closing(self._results(jobs, deterministic, seed)) as results:
                for result in results:
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

    def _results(
        self, jobs: Mapping[int, Episode], deterministic: bool, seed: int
    ) -> Generator[EpisodeResult, None, None]:
        if not self._pool.workers:
            yield from run_episodes(
                self._make_env,
                self._acting,
                jobs.items(),
                deterministic=deterministic,
                seed=seed,
                envs=self._envs,
            )
        elif not self._serve:
            yield from self._in_workers(jobs, deterministic, seed, None)
        else:
            server = PolicyServer(
                self._acting,
                batch=self._batch,
                wait=self._wait,
                deterministic=deterministic,
                patience=max(self._timeout, START_UP_SECONDS),
            )
            with torch.random.fork_rng(devices=[]), server:
                yield from self._in_workers(jobs, deterministic, seed, server)
            self.server_stats = server.stats()

    def _in_workers(
        self,
        jobs: Mapping[int, Episode],
        deterministic: bool,
        seed: int,
        server: PolicyServer | None,
    ) -> Iterator[EpisodeResult]:
        names = {index: environment_of(self._make_env, jobs[index]) for index in jobs}
        queue = _Queue(names, self._held)
        playing: dict[int, int] = {}
        begun: set[int] = set()
        while len(queue) or playing or self._pool.busy:
            if self._closed:
                raise RuntimeError("this collector was closed while it collected")
            for place in self._pool.ready():
                if len(queue) and (taken := queue.take(place)) is not None:
                    index, dropped = taken
                    playing[place] = index
                    self._pool.submit(place, (index, jobs[index], deterministic, seed, dropped))
            if server is not None:
                server.check()
                server.expect(len(begun.intersection(playing.values())))
            for place, message in self._pool.wait():
                if isinstance(message, Lost):
                    self._held[place] = []
                    left = "it was playing no episode"
                    if place in playing:
                        index = playing.pop(place)
                        if index in begun:
                            self.crashed += 1
                            left = f"{jobs[index]}, {index} in the list, is dropped"
                        else:
                            queue.put_back(index)
                    logger.warning("a simulator process %s; %s", message.why, left)
                elif isinstance(message, Question) and server is not None:
                    server.ask(message.content, message.answer)
                elif message is None:
                    begun.add(playing[place])
                else:
                    trajectory = TensorDict(unpack(message)).auto_batch_size_(1)
                    yield EpisodeResult(playing.pop(place), trajectory)

    def close(self) -> None:
        """Stop the workers and close the environments; a collection in another thread ends."""
        self._closed = True
        with self._collecting:
            self._pool.close()
            for env in self._envs.values():
                env.close()
            self._envs = {}

    def __enter__(self) -> EpisodeCollector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
