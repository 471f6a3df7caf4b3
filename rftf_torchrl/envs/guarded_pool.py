"""Worker processes with simulators, which may die or hang: the lost ones are replaced."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol

import torch

from rftf_torchrl.errors import SimulatorCrashedError, TooManyCrashesError, UserError

_START_UP_SECONDS = 120.0
_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class Player(Protocol):
    """What does the jobs of one worker process, in that process."""

    def play(self, job: Any, send: Callable[[Any], None]) -> None:
        """Does a job, and sends what comes of it; each message is a sign of life.

        Raises:
            SimulatorCrashedError: where the simulator died, and the worker is to be replaced.
        """
        ...

    def close(self) -> None:
        """Frees the simulators."""
        ...


@dataclass(frozen=True)
class Lost:
    """A worker died or hung: what it was doing will not be finished."""

    why: str


def _serve(connection: Connection, make_player: Callable[[], Player]) -> None:
    torch.set_num_threads(1)
    player: Player | None = None
    try:
        player = make_player()
        connection.send(("ready", None))
        while (job := connection.recv()) is not None:
            player.play(job, lambda message: connection.send(("message", message)))
            connection.send(("idle", None))
    except (KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except SimulatorCrashedError as error:
        connection.send(("lost", f"crashed: {error}"))
    except (ImportError, UserError) as error:
        connection.send(("refused", error))
    except Exception as error:
        where = traceback.format_exc()
        connection.send(("error", f"{type(error).__name__}: {error}\n\nIn the worker: {where}"))
    finally:
        if player is not None:
            player.close()


class _Worker:
    """One process; it is ready once it has a player, and busy from a job to its end."""

    def __init__(self, context: Any, make_player: Callable[[], Player]) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make_player), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = self.busy = False
        self.last_message = time.monotonic()

    def submit(self, job: Any) -> None:
        self.busy = True
        self.last_message = time.monotonic()
        with suppress(OSError):  # a worker that died meanwhile is found when waiting for it
            self.connection.send(job)

    def receive(self) -> tuple[str, Any]:
        try:
            kind, payload = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            return "lost", f"died with exit code {self.process.exitcode}"
        self.last_message = time.monotonic()
        self.ready = True
        self.busy = self.busy and kind != "idle"
        return kind, payload

    def hung(self, timeout: float) -> str | None:
        """How long it was silent, where that is too long; loading libraries may take longer."""
        patience = timeout if self.ready else max(timeout, _START_UP_SECONDS)
        waiting = self.ready and not self.busy
        if waiting or time.monotonic() - self.last_message <= patience:
            return None
        return f"hung for {patience:g} s"

    def stop(self) -> None:
        """Let an idle worker close its simulators; kill one that is busy or does not answer."""
        if self.ready and not self.busy:
            with suppress(OSError):
                self.connection.send(None)
                self.process.join(_CLOSE_SECONDS)
        self.process.kill()
        self.process.join()
        self.connection.close()


class GuardedPool:
    """A number of worker processes, each of which does one job after another.

    Args:
        make_player: picklable; builds in each process what does the jobs.
        size: the number of processes.
        timeout: seconds without a message after which a worker that has a job counts as hung; one
            that is still starting has two minutes at least.
        max_restarts: how many lost workers to replace before giving up.
        preload: the module that a new process needs, loaded once for all where the system can.

    Attributes:
        workers: the processes, by place.
    """

    def __init__(
        self,
        make_player: Callable[[], Player],
        size: int,
        *,
        timeout: float,
        max_restarts: int,
        preload: str,
    ) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
        self._context = multiprocessing.get_context(method)
        if method:
            self._context.set_forkserver_preload([preload])
        self._make_player = make_player
        self._timeout = timeout
        self._restarts_left = max_restarts
        self.workers = [_Worker(self._context, make_player) for _ in range(size)]

    @property
    def busy(self) -> bool:
        """Whether a worker has a job."""
        return any(worker.busy for worker in self.workers)

    def free(self) -> list[int]:
        """The places of the workers without a job; one that is starting takes its first."""
        return [place for place, worker in enumerate(self.workers) if not worker.busy]

    def submit(self, place: int, job: Any) -> None:
        """Give a job to a free worker."""
        self.workers[place].submit(job)

    def wait(self) -> Iterator[tuple[int, Any]]:
        """Wait a second at most for messages.

        Yields:
            The worker's place and its message, or :class:`Lost`, after which there is another
            worker at this place.

        Raises:
            ImportError, UserError: when a worker lacks something, as its own error said.
            RuntimeError: when a worker met a programming error; it holds the traceback.
            TooManyCrashesError: when a worker is lost and none may be replaced any more.
        """
        silent = {worker.connection: place for place, worker in enumerate(self.workers)}
        for connection in wait_for(list(silent), timeout=_POLL_SECONDS):
            place = silent.pop(connection)
            kind, payload = self.workers[place].receive()
            if kind == "refused":
                raise payload
            if kind == "error":
                raise RuntimeError(f"a worker process failed: {payload}")
            if kind == "message":
                yield place, payload
            elif kind == "lost":
                yield place, Lost(payload)
                self._replace(place, payload)
        for place in silent.values():
            why = self.workers[place].hung(self._timeout)
            if why is not None:
                yield place, Lost(why)
                self._replace(place, why)

    def _replace(self, place: int, why: str) -> None:
        self.workers[place].stop()
        if self._restarts_left == 0:
            raise TooManyCrashesError(
                f"a simulator process {why} and no restart is left. Look at the simulator's own "
                "log, or raise max_restarts."
            )
        self._restarts_left -= 1
        self.workers[place] = _Worker(self._context, self._make_player)

    def close(self) -> None:
        """Stop all workers."""
        for worker in self.workers:
            worker.stop()
        self.workers = []
