"""Play chains in processes that may crash or hang; each lost chain is played once more."""

from __future__ import annotations

import logging
import multiprocessing
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

import torch

from rftf_torchrl.calvin.chains.results import ChainResult
from rftf_torchrl.calvin.chains.stages import ChainStage, play_chain
from rftf_torchrl.calvin.sequences import Chain
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.simulator import SimulatorCrashedError
from rftf_torchrl.envs.collector import TooManyCrashesError

logger = logging.getLogger(__name__)

_START_UP_SECONDS = 120.0
_SIGN_OF_LIFE_SECONDS = 1.0
_ATTEMPTS = 2


Results: TypeAlias = Generator[tuple[int, ChainResult | None], None, None]


def _play_here(
    make_stage: Callable[[], ChainStage], chains: Mapping[int, Chain], scene: Scene, seed: int
) -> Results:
    stage: ChainStage | None = None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for index, chain in chains.items():
            result = None
            for _ in range(_ATTEMPTS):
                stage = make_stage() if stage is None else stage
                try:
                    result = play_chain(stage, index, chain, scene=scene, seed=seed)
                    break
                except SimulatorCrashedError as error:
                    logger.warning("chain %d: %s", index, error)
                    stage.close()
                    stage = None
            yield index, result
    finally:
        torch.set_num_threads(threads)
        if stage is not None:
            stage.close()


def _serve(connection: Connection, make_stage, scene: Scene, seed: int) -> None:
    torch.set_num_threads(1)
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last > _SIGN_OF_LIFE_SECONDS:
            last = time.monotonic()
            connection.send(("alive", None))

    stage: ChainStage | None = None
    try:
        stage = make_stage()
        connection.send(("ready", None))
        while (job := connection.recv()) is not None:
            connection.send(("done", play_chain(stage, *job, scene=scene, seed=seed, alive=alive)))
    except (KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except SimulatorCrashedError as error:
        connection.send(("crashed", str(error)))
    except Exception as error:
        where = traceback.format_exc()
        connection.send(("error", f"{type(error).__name__}: {error}\n\nIn the worker: {where}"))
    finally:
        if stage is not None:
            stage.close()


class _Worker:
    def __init__(self, context, arguments: tuple) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.job: tuple[int, int] | None = None
        self.last_message = time.monotonic()

    def submit(self, index: int, attempt: int, chain: Chain) -> None:
        self.job = index, attempt
        self.last_message = time.monotonic()
        with suppress(OSError):  # a worker that died meanwhile is found when waiting for it
            self.connection.send((index, chain))

    @property
    def idle(self) -> bool:
        """Whether it waits for a chain."""
        return self.ready and self.job is None

    def receive(self) -> tuple[str, Any]:
        """Its next message, ``"crashed"`` if it died."""
        try:
            kind, payload = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            return "crashed", f"it died with exit code {self.process.exitcode}"
        self.last_message = time.monotonic()
        self.ready = True
        return kind, payload

    def hung(self, timeout: float) -> bool:
        """Whether it was silent too long; loading the libraries takes longer than a decision."""
        if self.idle:
            return False
        patience = timeout if self.ready else max(timeout, _START_UP_SECONDS)
        return time.monotonic() - self.last_message > patience

    def stop(self, patience: float = 5.0) -> None:
        """Let an idle worker close its simulator; kill one that is busy or does not answer."""
        if self.idle:
            with suppress(OSError):
                self.connection.send(None)
                self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Pool:
    """Workers, of which the lost ones are replaced."""

    def __init__(self, arguments: tuple, size: int, timeout: float, restarts: int) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
        self._context = multiprocessing.get_context(method)
        if method:
            self._context.set_forkserver_preload(["rftf_torchrl.calvin.chains.workers"])
        self._arguments = arguments
        self._timeout = timeout
        self._restarts_left = restarts
        self._workers = [_Worker(self._context, arguments) for _ in range(size)]

    def idle(self) -> list[_Worker]:
        """Workers that wait for a chain."""
        return [worker for worker in self._workers if worker.idle]

    def wait(self) -> Iterator[tuple[int, int, ChainResult | None]]:
        """(index, attempt, result) of the chains that ended; no result where a worker was lost."""
        places = {worker.connection: place for place, worker in enumerate(self._workers)}
        for connection in wait(list(places), timeout=1.0):
            place = places.pop(connection)
            worker = self._workers[place]
            kind, payload = worker.receive()
            if kind == "error":
                raise RuntimeError(f"a worker that plays chains failed: {payload}")
            if kind == "crashed":
                yield from self._replace(place, payload)
            elif kind == "done":
                job, worker.job = worker.job, None
                if job is not None:
                    yield (*job, payload)
        for place in places.values():
            if self._workers[place].hung(self._timeout):
                yield from self._replace(place, f"no sign of life for {self._timeout:g} s")

    def _replace(self, place: int, why: str) -> Iterator[tuple[int, int, None]]:
        logger.warning("a simulator process was lost: %s", why)
        if self._restarts_left == 0:
            raise TooManyCrashesError(
                f"a simulator process was lost ({why}) and no restart is left. Look at the "
                "simulator's own log, or raise max_restarts."
            )
        self._restarts_left -= 1
        lost = self._workers[place]
        lost.stop()
        self._workers[place] = _Worker(self._context, self._arguments)
        if lost.job is not None:
            yield (*lost.job, None)

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()


def play_chains(
    make_stage: Callable[[], ChainStage],
    chains: Mapping[int, Chain],
    scene: Scene,
    seed: int,
    *,
    workers: int,
    timeout: float,
    max_restarts: int,
) -> Results:
    """Play chains, each in a simulator that is as new.

    Args:
        make_stage: picklable; builds where they are played.
        chains: by index.
        scene: letter of the scene.
        seed: of the policy's noise.
        workers: number of processes, each with one simulator; 0 plays in this one.
        timeout: seconds without a sign of life after which a worker counts as hung.
        max_restarts: how many dead or hung workers to replace before giving up.

    Yields:
        (index, result) as chains finish, with ``None`` where two simulators were lost with it.

    Raises:
        TooManyCrashesError: when workers keep dying.
        RuntimeError: when a worker met a programming error.
    """
    if workers == 0:
        yield from _play_here(make_stage, chains, scene, seed)
        return
    pool = _Pool((make_stage, scene, seed), min(workers, len(chains)), timeout, max_restarts)
    waiting = deque((index, 1) for index in chains)
    unfinished = len(chains)
    try:
        while unfinished:
            for index, attempt, result in pool.wait():
                if result is None and attempt < _ATTEMPTS:
                    waiting.appendleft((index, attempt + 1))
                else:
                    unfinished -= 1
                    yield index, result
            for worker in pool.idle():
                if waiting:
                    index, attempt = waiting.popleft()
                    worker.submit(index, attempt, chains[index])
    finally:
        pool.close()
