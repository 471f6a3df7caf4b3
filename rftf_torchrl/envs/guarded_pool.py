"""Worker processes with simulators, which may die or hang: the lost ones are replaced."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from rftf_torchrl.envs.job_queue import JobQueue
from rftf_torchrl.envs.policy_server import PolicyServer
from rftf_torchrl.envs.watch_clock import WatchClock
from rftf_torchrl.envs.workers import CLOSE_SECONDS, Deliver, Worker
from rftf_torchrl.errors import TooManyCrashesError

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Lost:
    """A worker died or hung: what it was doing will not be finished."""

    why: str
    begun: bool = True


class _Inbox:
    """Takes what workers send; their questions go on to a server at once.

    The thread that plays would slow them down.
    """

    def __init__(self) -> None:
        self.arrived: SimpleQueue[tuple[Worker, str, Any]] = SimpleQueue()
        self.server: PolicyServer | None = None

    def __call__(self, worker: Worker, kind: str, payload: Any) -> None:
        server = self.server
        if kind != "question":
            self.arrived.put((worker, kind, payload))
        elif server is not None:
            server.ask(payload, worker.send)


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
        start: Callable[[Deliver, WatchClock], Worker],
        size: int,
        *,
        timeout: float,
        max_restarts: int,
    ) -> None:
        self._inbox = _Inbox()
        self._clock, self._next_look = WatchClock(), time.monotonic()
        self._start = partial(start, self._inbox, self._clock)
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

    def wait(self, *, block: bool = True) -> Iterator[tuple[int, Any]]:
        """Wait half a second at most for messages, or take only those that are there.

        Yields:
            The worker's place and its message, or :class:`Lost`; then there is another worker at
            this place.

        Raises:
            ImportError, UserError: when a worker lacks something, as its own error said.
            RuntimeError: when a worker met a programming error; it holds the traceback.
            TooManyCrashesError: when a worker is lost and none may be replaced any more.
        """
        for worker, kind, payload in self._messages(block):
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

    def _messages(self, block: bool) -> Iterator[tuple[Worker, str, Any]]:
        """What has arrived, or what arrives first until the workers are looked at again."""
        with suppress(Empty):
            until = max(0.0, self._next_look - time.monotonic())
            yield self._inbox.arrived.get(block, until)
            for _ in range(self._inbox.arrived.qsize()):
                yield self._inbox.arrived.get_nowait()

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
        finished: deque[tuple[Key, Any]] = deque()
        if server is not None:
            server.expect(min(len(self.workers), len(jobs)))
        self._inbox.server = server
        try:
            while len(queue) or playing or self.busy or finished:
                if self._stopped:
                    raise RuntimeError("the simulators were closed while they played")
                for place in self.ready():  # one that dies while it starts has no job to lose
                    if len(queue) and (taken := queue.take(place)) is not None:
                        playing[place], dropped = taken
                        job = jobs[playing[place]]
                        self.submit(place, job if names is None else (job, dropped))
                if server is not None:
                    server.check()
                    busy = sum(worker.busy for worker in self.workers)
                    server.expect(min(busy, len(queue) + len(playing)))
                block = not finished
                if finished:  # one at a time: meanwhile workers become free
                    yield finished.popleft()
                for place, message in self.wait(block=block):
                    if isinstance(message, Lost):
                        left = "it was playing nothing"
                        if place in playing:
                            key = playing.pop(place)
                            begun[key] += message.begun
                            if begun[key] == attempts:
                                finished.append((key, message))
                                continue
                            queue.put_back(key)
                            left = "what it was playing begins again" if message.begun else left
                        logger.warning("a simulator process %s; %s", message.why, left)
                    elif message is not None:
                        finished.append((playing.pop(place), message))
        except Exception:
            for worker, kind, message in self._messages(block=False):  # beside the error
                if kind == "message" and message is not None and worker in self.workers:
                    done = playing.pop(self.workers.index(worker), None)
                    finished += [] if done is None else [(done, message)]
            yield from finished
            raise
        finally:
            self._inbox.server = None

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
        deadline = time.monotonic() + CLOSE_SECONDS
        for worker in idle:
            worker.join(max(0.0, deadline - time.monotonic()))
        for worker in self.workers:
            worker.kill()
        self.workers = []
