"""Workers as Ray actors, on any machine of a cluster."""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from threading import current_thread, main_thread
from typing import Any

from rftf_torchrl.envs.remote_player import RemotePlayer, socket_of, without_delay
from rftf_torchrl.envs.watch_clock import WatchClock
from rftf_torchrl.envs.workers import Deliver, Player, Worker
from rftf_torchrl.errors import UserError
from rftf_torchrl.optional import ray_module

logger = logging.getLogger(__name__)

_ENDED = {"num_returns": 0}  # what a call does is told by the line to the pool


class _Actor(Worker):
    """An actor, as its pool sees it."""

    def __init__(self, cluster: RayActors, deliver: Deliver, clock: WatchClock) -> None:
        self._cluster, self._weights = cluster, None
        self._remote = cluster.make()
        self.host = ""
        super().__init__(deliver, clock)

    def _connect(self) -> Connection:
        address, self.pid = self._cluster.get(self._remote.where.remote())
        self.host, self.last_message = address[0], self._clock()
        self._remote.start.options(**_ENDED).remote(sys.path, self._cluster.make_player)
        return without_delay(Client(address, authkey=self._cluster.key))

    @property
    def placed(self) -> bool:
        """Whether it has a place in the cluster."""
        return bool(self.host)

    def submit(self, job: Any) -> None:
        self.busy, self.last_message = True, self._clock()
        if self._weights is not self._cluster.weights:
            self._weights = self._cluster.weights
            self._remote.load.options(**_ENDED).remote(self._weights)
        self._remote.play.options(**_ENDED).remote(job)

    def wait_again(self) -> None:
        """From now on, for a place."""
        self.last_message = self._clock()

    def hung(self, timeout: float) -> str | None:
        seconds = self.silent_for(timeout)
        if seconds is not None and not self.placed:
            self._cluster.no_place(seconds)
            return None
        return super().hung(timeout)

    def how_it_died(self) -> str:
        if not self.placed:
            return "died before it had started"
        return f"died on {self.host}, process {self.pid}"

    def kill(self) -> None:
        self._cluster.kill(self, self._remote)
        if self._connection is not None:  # a machine without power does not close it
            with suppress(OSError), socket_of(self._connection) as line:
                line.shutdown(socket.SHUT_RDWR)


class RayActors:
    """Starts workers as Ray actors.

    An actor's calls are Ray's, and so are the places, the weights and the end of the processes.
    What a player sends goes by a connection of its own, as from a process of this machine: a Ray
    call for each decision takes much longer.

    Args:
        make_player: picklable; builds in each actor what does the jobs.
        size: the number of actors.
        gpus: GPUs of each.

    Attributes:
        weights: those that a player has to have before its next job; None for its own.
    """

    def __init__(self, make_player: Callable[[], Player], size: int, gpus: float) -> None:
        self._ray: Any = ray_module()
        self._size, self._gpus = size, gpus
        self._connect()
        self._class = self._ray.remote(RemotePlayer).options(num_cpus=1, num_gpus=gpus)
        self.key = secrets.token_bytes(32)
        self.make_player = self._ray.put(self._ray.cloudpickle.dumps(make_player))
        self.weights: Any = None
        self._alive: set[_Actor] = set()

    def __call__(self, deliver: Deliver, clock: WatchClock) -> Worker:
        """Start one."""
        actor = _Actor(self, deliver, clock)
        self._alive.add(actor)
        return actor

    def _connect(self) -> None:
        """To the cluster that there is; without one, start one on this machine."""
        ray = self._ray
        if ray.is_initialized():
            return
        quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
        at_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(num_cpus=self._size, include_dashboard=False, **quiet)
        except ValueError:  # there is one, which has a number of its own
            ray.init(**quiet)
        finally:
            if current_thread() is main_thread():
                signal.signal(signal.SIGTERM, at_sigterm)

    def make(self) -> Any:
        """Ask the cluster for an actor."""
        return self._class.remote(self.key)

    def get(self, reference: Any) -> Any:
        """What a call gave.

        Raises:
            EOFError: when the actor is dead.
        """
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            raise EOFError from error

    def kill(self, actor: _Actor, remote: Any) -> None:
        """End an actor, whatever it is doing."""
        self._alive.discard(actor)
        self._ray.kill(remote)

    def share(self, weights: Any) -> None:
        """Have each player load weights before its next job."""
        self.weights = self._ray.put(weights)

    def no_place(self, seconds: float) -> None:
        """Say that an actor has not come for so long; others may play without it.

        Raises:
            UserError: when there is no other.
        """
        asked = f"1 CPU and {self._gpus:g} GPU"
        has, free = (
            " and ".join(f"{found.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
            for found in (self._ray.cluster_resources(), self._ray.available_resources())
        )
        text = (
            f"the Ray cluster has had no place for a simulator for {seconds:g} s. Each of the "
            f"{self._size} asks for {asked}; the cluster has {has}, of which {free} are free. Add "
            "a machine (ray start), or lower collector.workers or collector.gpus_per_simulator."
        )
        waiting = [actor for actor in self._alive if not actor.placed]
        placed = len(self._alive) - len(waiting)
        if not placed:
            raise UserError(text)
        logger.warning("%s The %d that have one go on.", text, placed)
        for actor in waiting:  # one line for all
            actor.wait_again()
