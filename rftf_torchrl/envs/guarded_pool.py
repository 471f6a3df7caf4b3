"""Worker processes with simulators, which may die or hang: the lost ones are replaced."""

from __future__ import annotations

import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, main_thread
from typing import Any, Protocol, TypeAlias, TypeVar

import torch

from rftf_torchrl.envs.child_process import ChildContext
from rftf_torchrl.envs.job_queue import JobQueue
from rftf_torchrl.envs.policy_server import PolicyServer
from rftf_torchrl.envs.watch_clock import WatchClock
from rftf_torchrl.errors import SimulatorCrashedError, TooManyCrashesError, UserError

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

START_UP_SECONDS = 120.0
_POLL_SECONDS = 0.5
_SIGN_OF_LIFE_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_PIPE_BYTES = 32768
_END_WITH_PARENT = "rftf_torchrl.envs.end_with_parent"


Arrived: TypeAlias = "SimpleQueue[tuple[Worker, str, Any]]"


class Line:
    """A worker's line to its pool: call it to send a message."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, message: Any) -> None:
        self._connection.send(("message", message))

    def ask(self, question: Any) -> Any:
        """The pool's answer, for which a worker may wait as long as it takes."""
        self._connection.send(("question", question))
        return self._connection.recv()


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


@dataclass(frozen=True)
class Question:
    """A worker waits until ``answer`` is called, in any thread."""

    content: Any
    answer: Callable[[Any], None]


@dataclass(frozen=True)
class Lost:
    """A worker died or hung: what it was doing will not be finished."""

    why: str
    begun: bool = True


@contextmanager
def told(connection: Connection) -> Iterator[None]:
    """What ends a worker is told to its pool."""
    try:
        yield
    except (KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except SimulatorCrashedError as error:
        connection.send(("lost", f"crashed: {error}"))
    except (ImportError, UserError) as error:
        connection.send(("refused", error))
    except Exception as error:
        where = traceback.format_exc()
        connection.send(("error", f"{type(error).__name__}: {error}\n\nIn the worker: {where}"))


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

    def __init__(self, arrived: Arrived, clock: WatchClock) -> None:
        self.ready = self.busy = self.begun = self._asking = False
        self._clock, self.last_message = clock, clock()
        self._connection: Connection | None = None
        self._reader = Thread(target=self._read, args=(arrived,), daemon=True)
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

    def _read(self, arrived: Arrived) -> None:
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
            arrived.put((self, kind, payload))

    def submit(self, job: Any) -> None:
        """Give it a job, or None to have it end."""
        self.busy = True
        self.send(job)

    def send(self, content: Any) -> None:
        """Send it a message."""
        waits, self._asking = self._asking, False
        self.last_message = self._clock()
        message = ForkingPickler.dumps(content)
        if waits and len(message) < _PIPE_BYTES:
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
        arrived: Arrived,
        clock: WatchClock,
    ) -> None:
        self._ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make_player), daemon=True)
        self.process.start()
        self.pid = self.process.pid or 0
        theirs.close()
        super().__init__(arrived, clock)

    def _connect(self) -> Connection:
        return self._ours

    def how_it_died(self) -> str:
        self.process.join(1.0)
        return f"died with exit code {self.process.exitcode}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join(_CLOSE_SECONDS)


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

    def __call__(self, arrived: Arrived, clock: WatchClock) -> Worker:
        """Start one."""
        return _Process(self._context, self._make_player, arrived, clock)


class GuardedPool:
    """A number of workers, each of which does one job after another.

    Args:
        start: starts one, see :class:`Processes`.
        size: the number of workers.
        timeout: seconds without a message after which a worker that has a job counts as hung; one
            that is still starting has two minutes at least.
        max_restarts: how many lost workers to replace before giving up.

    Attributes:
        workers: by place.
    """

    def __init__(
        self,
        start: Callable[[Arrived, WatchClock], Worker],
        size: int,
        *,
        timeout: float,
        max_restarts: int,
    ) -> None:
        self._arrived: Arrived = SimpleQueue()
        self._clock, self._next_look = WatchClock(), time.monotonic()
        self._start = partial(start, self._arrived, self._clock)
        self._timeout = timeout
        self._restarts_left = max_restarts
        self._held: list[list[Hashable]] = [[] for _ in range(size)]
        self._stopped = False
        self.workers = [self._start() for _ in range(size)]

    @property
    def busy(self) -> bool:
        """Whether a worker has a job."""
        return any(worker.busy for worker in self.workers)

    def free(self) -> list[int]:
        """The places of the workers without a job; one that is starting takes its first."""
        return [place for place, worker in enumerate(self.workers) if not worker.busy]

    def ready(self) -> list[int]:
        """The places of the workers that have started and have no job."""
        return [place for place in self.free() if self.workers[place].ready]

    def submit(self, place: int, job: Any) -> None:
        """Give a job to a free worker."""
        self.workers[place].submit(job)

    def wait(self) -> Iterator[tuple[int, Any]]:
        """Wait half a second at most for messages.

        Yields:
            The worker's place and its message, or :class:`Question`, or :class:`Lost`, after which
            there is another worker at this place.

        Raises:
            ImportError, UserError: when a worker lacks something, as its own error said.
            RuntimeError: when a worker met a programming error; it holds the traceback.
            TooManyCrashesError: when a worker is lost and none may be replaced any more.
        """
        for worker, kind, payload in self._messages():
            if worker not in self.workers:
                continue
            place = self.workers.index(worker)
            if kind == "refused":
                raise payload
            if kind == "error":
                raise RuntimeError(f"a worker process failed: {payload}")
            if kind == "lost":
                why = payload or worker.how_it_died()
                yield place, Lost(why, worker.begun)
                self._replace(place, why)
            elif kind == "message":
                yield place, payload
            elif kind == "question":
                yield place, Question(payload, worker.send)
            else:
                worker.ready, worker.busy = True, worker.busy and kind != "idle"
                worker.begun = kind == "begun"
        if time.monotonic() < self._next_look:  # of many workers each has messages
            return
        self._next_look = time.monotonic() + _POLL_SECONDS
        for place, worker in enumerate(self.workers):
            hung = worker.hung(self._timeout)
            if hung is not None:
                yield place, Lost(hung, worker.begun)
                self._replace(place, hung)

    def _messages(self) -> Iterator[tuple[Worker, str, Any]]:
        """What has arrived, or what arrives first until the workers are looked at again."""
        with suppress(Empty):
            yield self._arrived.get(timeout=max(0.0, self._next_look - time.monotonic()))
            for _ in range(self._arrived.qsize()):
                yield self._arrived.get_nowait()

    def play(
        self,
        jobs: Mapping[Key, Any],
        attempts: int,
        *,
        names: Mapping[Key, Hashable] | None = None,
        server: PolicyServer | None = None,
    ) -> Iterator[tuple[Key, Any]]:
        """Have jobs done whose players send one result each, and None as a sign of life.

        Args:
            jobs: by any key, done in this order as workers become free.
            attempts: how often to begin a job whose worker is lost.
            names: what names the environment of each job. A worker then goes on in one that it
                has, and its player is given the job and the environment to close first, or None.
            server: answers what the players ask.

        Yields:
            The job's key and its result as jobs finish, or :class:`Lost` after the last attempt.

        Raises:
            RuntimeError: as :meth:`wait`, and after :meth:`stop`.
            TooManyCrashesError: as :meth:`wait`.
            Exception: the policy's own, where it fails in the server.
        """
        queue = JobQueue(names or dict.fromkeys(jobs), self._held)
        playing: dict[int, Key] = {}
        begun: Counter[Key] = Counter()
        while len(queue) or playing or self.busy:
            if self._stopped:
                raise RuntimeError("the simulators were closed while they played")
            for place in self.ready():  # one that dies while it starts has no job to lose
                if len(queue) and (taken := queue.take(place)) is not None:
                    playing[place], dropped = taken
                    job = jobs[playing[place]]
                    self.submit(place, job if names is None else (job, dropped))
            if server is not None:
                server.check()
                server.expect(sum(worker.begun for worker in self.workers))
            for place, message in self.wait():
                if isinstance(message, Question) and server is not None:
                    server.ask(message.content, message.answer)
                elif isinstance(message, Lost):
                    left = "it was playing nothing"
                    if place in playing:
                        key = playing.pop(place)
                        begun[key] += message.begun
                        if begun[key] == attempts:
                            yield key, message
                            continue
                        queue.put_back(key)
                        left = "what it was playing begins again" if message.begun else left
                    logger.warning("a simulator process %s; %s", message.why, left)
                elif message is not None:
                    yield playing.pop(place), message

    def _replace(self, place: int, why: str) -> None:
        self.workers[place].kill()
        if self._restarts_left == 0:
            raise TooManyCrashesError(
                f"a simulator process {why} and no restart is left. Look at the simulator's own "
                "log, or raise max_restarts."
            )
        self._restarts_left -= 1
        self._held[place] = []
        self.workers[place] = self._start()

    def stop(self) -> None:
        """Has :meth:`play` end with an error, in whichever thread it is."""
        self._stopped = True

    def close(self) -> None:
        """Let idle workers close their simulators; kill those that are busy or do not answer."""
        idle = [worker for worker in self.workers if worker.ready and not worker.busy]
        for worker in idle:
            worker.submit(None)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for worker in idle:
            worker.join(max(0.0, deadline - time.monotonic()))
        for worker in self.workers:
            worker.kill()
        self.workers = []
