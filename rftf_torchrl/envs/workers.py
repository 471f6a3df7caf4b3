"""Worker processes that do one job after another, and the line to each."""

from __future__ import annotations

import pickle
import select
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread, current_thread, main_thread
from typing import Any, Protocol, TypeAlias

import torch

from rftf_torchrl.envs.child_process import ChildContext
from rftf_torchrl.envs.watch_clock import WatchClock
from rftf_torchrl.errors import SimulatorCrashedError, UserError

START_UP_SECONDS = 120.0
CLOSE_SECONDS = 5.0
_SIGN_OF_LIFE_SECONDS = 1.0
_PIPE_BYTES = 32768
_OTHERS_FIRST = 30
"""Milliseconds for which a worker that has asked leaves the processor to those that have not."""
_END_WITH_PARENT = "rftf_torchrl.envs.end_with_parent"

# the newest protocol copies an array once, and multiprocessing's own pickler is slower to make
to_bytes = partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL)

Deliver: TypeAlias = Callable[["Worker", str, Any], None]
"""Takes a message, of which kind and what, in the thread that has read it."""


class Line:
    """A worker's line to its pool: call it to send a message."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answers = select.poll()  # a connection's own poll makes one each time
        self._answers.register(connection, select.POLLIN)

    def __call__(self, message: Any) -> None:
        self._send("message", message)

    def ask(self, question: Any) -> Callable[[], Any]:
        """What waits for the pool's answer, as long as it takes, and gives it."""
        self._send("question", question)
        self._answers.poll(_OTHERS_FIRST)
        return self._connection.recv

    def _send(self, kind: str, content: Any) -> None:
        self._connection.send_bytes(to_bytes((kind, content)))


class Player(Protocol):
    """What does the jobs of one worker process, in that process."""

    def play(self, job: Any, send: Line) -> None:
        """Does a job, and sends what comes of it; each message is a sign of life.

        Raises:
            SimulatorCrashedError: where the simulator died, and the worker is to be replaced.
        """
        ...

    def close(self) -> None:
        """Frees the simulators."""
        ...


class SignsOfLife:
    """Sends None when called, once per second at most: the player is at work.

    Args:
        send: of :meth:`Player.play`.
    """

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send, self._last = send, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > _SIGN_OF_LIFE_SECONDS:
            self._last = time.monotonic()
            self._send(None)


@contextmanager
def told(connection: Connection) -> Iterator[None]:
    """What ends a worker is told to its pool, if that is still there."""
    last: tuple[str, Any]
    try:
        yield
    except KeyboardInterrupt:
        return
    except SimulatorCrashedError as error:
        last = "lost", f"crashed: {error}"
    except (ImportError, UserError) as error:
        last = "refused", error
    except Exception as error:
        where = traceback.format_exc()
        last = "error", f"{type(error).__name__}: {error}\n\nIn the worker: {where}"
    else:
        return
    with suppress(OSError):
        connection.send(last)


def _serve(connection: Connection, make_player: Callable[[], Player]) -> None:
    torch.set_num_threads(1)
    player: Player | None = None
    try:
        with told(connection):
            player = make_player()
            connection.send(("ready", None))
            while (job := connection.recv()) is not None:
                connection.send(("begun", None))
                player.play(job, Line(connection))
                connection.send(("idle", None))
    finally:
        if player is not None:
            player.close()


class Worker(ABC):
    """One worker; it is ready once it has a player, and busy from a job to its end.

    Threads read and write, since both block for as long as a worker stops in the middle of a
    message; they end when it is killed, and the connection closes behind them.

    Attributes:
        pid: its process, on its machine; 0 while nobody knows.
    """

    pid = 0

    def __init__(self, deliver: Deliver, clock: WatchClock) -> None:
        self.ready = self.busy = self.begun = self._asking = self._reads = False
        self._clock, self.last_message = clock, clock()
        self._connection: Connection | None = None
        self._reader = Thread(target=self._read, args=(deliver,), daemon=True)
        self._reader.start()

    @abstractmethod
    def _connect(self) -> Connection:
        """The line to the worker, once it is there."""

    @abstractmethod
    def how_it_died(self) -> str:
        """A phrase after "a simulator process"."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it, whatever it is doing."""

    def _read(self, deliver: Deliver) -> None:
        kind = ""
        while kind not in ("lost", "error"):
            try:
                self._connection = self._connection or self._connect()
                kind, payload = self._connection.recv()
            except (EOFError, OSError):
                kind, payload = "lost", None
            except Exception:
                kind, payload = "error", f"unreadable message\n\n{traceback.format_exc()}"
            self.last_message = self._clock()
            self._asking = kind == "question"
            self._reads = kind in ("question", "idle", "ready")
            deliver(self, kind, payload)

    def submit(self, job: Any) -> None:
        """Give it a job, or None to have it end."""
        self.busy = True
        self.send(job)

    def send(self, content: Any) -> None:
        """Send it a message."""
        self.last_message = self._clock()  # before it counts as one that does not wait
        reads, self._asking, self._reads = self._reads, False, False
        message = to_bytes(content)
        if reads and len(message) < _PIPE_BYTES:
            self._write(message)  # it has read all before, so that there is room
        else:
            Thread(target=self._write, args=(message,), daemon=True).start()

    def _write(self, message: Any) -> None:
        assert self._connection is not None, "of a worker that is ready"
        with suppress(OSError):  # a worker that died meanwhile is found when waiting for it
            self._connection.send_bytes(message)

    def silent_for(self, timeout: float) -> float | None:
        """Its patience, where it was silent for longer; loading libraries may take longer."""
        patience = timeout if self.ready else max(timeout, START_UP_SECONDS)
        waiting = self.ready and not self.busy
        if waiting or self._asking or self._clock() - self.last_message <= patience:
            return None
        return patience

    def hung(self, timeout: float) -> str | None:
        """How long it was silent, where that is too long."""
        patience = self.silent_for(timeout)
        return None if patience is None else f"hung for {patience:g} s"

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        self._reader.join(seconds)


class _Process(Worker):
    """A process of this machine."""

    def __init__(
        self,
        context: ChildContext,
        make_player: Callable[[], Player],
        deliver: Deliver,
        clock: WatchClock,
    ) -> None:
        self._ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make_player), daemon=True)
        self.process.start()
        self.pid = self.process.pid or 0
        theirs.close()
        super().__init__(deliver, clock)

    def _connect(self) -> Connection:
        return self._ours

    def how_it_died(self) -> str:
        self.process.join(1.0)
        return f"died with exit code {self.process.exitcode}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join(CLOSE_SECONDS)


class Processes:
    """Starts workers as processes of this machine.

    Args:
        make_player: picklable; builds in each process what does the jobs.
        preload: the module that a new process needs, loaded once for all where the system can.
    """

    def __init__(self, make_player: Callable[[], Player], preload: str) -> None:
        self._make_player, self._context = make_player, ChildContext()
        # the kernel takes the end of the thread that starts the server for the end of the parent
        first = [_END_WITH_PARENT] if current_thread() is main_thread() else []
        self._context.set_forkserver_preload([*first, __name__, preload])

    def __call__(self, deliver: Deliver, clock: WatchClock) -> Worker:
        """Start one."""
        return _Process(self._context, self._make_player, deliver, clock)
