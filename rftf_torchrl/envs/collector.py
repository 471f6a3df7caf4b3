"""Collect a fixed list of episodes in worker processes that may crash or hang."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from threading import RLock
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
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
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost
from rftf_torchrl.envs.packed import pack, unpack
from rftf_torchrl.envs.ray_actors import RayActors
from rftf_torchrl.envs.shared_policy import SharedPolicy, connect
from rftf_torchrl.envs.workers import Line, Processes, SignsOfLife
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.policies.call_on_tensors import leaves

logger = logging.getLogger(__name__)


class _Player:
    """Plays single episodes in a worker process."""

    def __init__(self, make_env: Callable[[Episode], EnvBase], actor: Actor) -> None:
        self._player = EpisodePlayer(make_env, actor)

    def load(self, weights: Mapping[str, Any]) -> None:
        """Gives a copy of the policy other weights."""
        actor = self._player.actor
        assert isinstance(actor, LocalActor), "a served policy is not copied"
        actor.load(weights)

    def play(self, job: Any, send: Line) -> None:
        """Sends an episode's trajectory, and signs of life before."""
        (index, episode, deterministic, seed), dropped = job
        connect(self._player.actor, send)
        self._player.drop(dropped)
        alive = SignsOfLife(send)
        trajectory = self._player.play(
            index, episode, deterministic=deterministic, seed=seed, alive=alive
        )
        send(pack(leaves(trajectory)))

    def close(self) -> None:
        """Closes the environments."""
        self._player.close()


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
        self._policy = policy
        self._shared = SharedPolicy(
            policy, workers=workers, serve=serve, batch=batch, wait=wait, timeout=timeout
        )
        self._make_env = make_env
        self._envs: dict[Any, EnvBase] = {}
        make_player = partial(_Player, make_env, self._shared.actor)
        self._actors = RayActors(make_player, workers, gpus) if engine == "ray" else None
        start = self._actors or Processes(make_player, preload=__name__)
        self._pool = GuardedPool(start, workers, timeout=timeout, max_restarts=max_restarts)
        self._closed, self._collecting = False, RLock()
        self.crashed = 0
        self.env_steps = 0
        self.server_stats: dict[str, float | int] = {}

    def update_policy_weights_(self) -> None:
        """Copy the policy's present weights to the workers; a served policy needs no copy."""
        if self._shared.acting is not self._policy:
            self._shared.acting.load_state_dict(self._policy.state_dict())
            if self._actors is not None:
                self._actors.share(self._shared.acting.state_dict())

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
                    if self._closed:
                        raise RuntimeError("the simulators were closed while they played")
                    if result.trajectory["next", keys.CRASHED].any():
                        self.crashed += 1
                    else:
                        done[result.index] = result.trajectory
                        self.env_steps += len(result.trajectory)
                    if on_episode is not None:
                        on_episode(result)
            if not done:
                raise RuntimeError(f"all {len(jobs)} episodes crashed: nothing was collected")
        except BaseException:
            self.close()
            raise
        parts = []
        for index in sorted(done):
            part = done[index]
            part.set(keys.TRAJECTORY, torch.full(part.batch_size, index, dtype=torch.int64))
            if part.get("episode_seed", None) is None:  # an environment may leave it out
                part.set("episode_seed", torch.full((*part.batch_size, 1), jobs[index].seed))
            parts.append(part)
        return torch.cat(parts)

    def _results(
        self, jobs: Mapping[int, Episode], deterministic: bool, seed: int
    ) -> Generator[EpisodeResult, None, None]:
        if not self._pool.workers:
            for index, job in jobs.items():
                try:
                    yield from run_episodes(
                        self._make_env,
                        self._shared.acting,
                        [(index, job)],
                        deterministic=deterministic,
                        seed=seed,
                        envs=self._envs,
                    )
                except SimulatorCrashedError as error:  # in a reset
                    env = self._envs.pop(environment_of(self._make_env, job), None)
                    if env is not None:
                        env.close()
                    self.crashed += 1
                    logger.warning("%s; %s, %d in the list, is dropped", error, job, index)
            return
        names = {index: environment_of(self._make_env, jobs[index]) for index in jobs}
        orders = {index: (index, jobs[index], deterministic, seed) for index in jobs}
        with self._shared.server(deterministic) as server:
            for index, found in self._pool.play(orders, 1, names=names, server=server):
                if isinstance(found, Lost):
                    self.crashed += 1
                    logger.warning(
                        "a simulator process %s; %s, %d in the list, is dropped",
                        found.why,
                        jobs[index],
                        index,
                    )
                else:
                    columns = unpack(found)
                    length = len(columns["next", "done"])
                    yield EpisodeResult(index, TensorDict(columns, [length]))
        if server is not None:
            self.server_stats = server.stats()

    def close(self) -> None:
        """Stop the workers and close the environments; a collection in another thread ends."""
        self._closed = True
        self._pool.stop()
        with self._collecting:
            self._pool.close()
            for env in self._envs.values():
                env.close()
            self._envs = {}

    def __enter__(self) -> EpisodeCollector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
