"""Play the parts of an evaluation in processes that may crash or hang; lost ones are played again.

The results do not depend on the number of processes where each part has its own random numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

from rftf_torchrl.envs.episodes import Actor
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost
from rftf_torchrl.envs.one_thread import one_thread
from rftf_torchrl.envs.policy_server import PolicyServer
from rftf_torchrl.envs.shared_policy import connect
from rftf_torchrl.envs.workers import Line, Processes, SignsOfLife
from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.evaluation.finished import FinishedFile

logger = logging.getLogger(__name__)

_ATTEMPTS = 2


class PartStage(Protocol):
    """Where parts are played, one after another; its simulators are freed by ``close()``."""

    @property
    def actor(self) -> Actor | None:
        """What decides, if it is a policy."""
        ...

    def close(self) -> None:
        """Frees the simulators."""
        ...


Stage = TypeVar("Stage", bound=PartStage)
Play: TypeAlias = "Callable[[Any, int, Any, Callable[[], None]], Any]"
"""Plays one part: (stage, index, part, a function to call now and then) -> result."""


def _play_here(
    make_stage: Callable[[], Stage], play: Play, parts: Mapping[int, Any]
) -> Generator[tuple[int, Any | None], None, None]:
    stage: Stage | None = None
    try:
        for index, part in parts.items():
            result = None
            for _ in range(_ATTEMPTS):
                stage = make_stage() if stage is None else stage
                try:
                    with one_thread():
                        result = play(stage, index, part, lambda: None)
                    break
                except SimulatorCrashedError as error:
                    logger.warning("part %d: %s", index, error)
                    stage.close()
                    stage = None
            yield index, result
    finally:
        if stage is not None:
            stage.close()


class _PartPlayer:
    """Plays parts in a worker process, all on one stage."""

    def __init__(self, make_stage: Callable[[], PartStage], play: Play) -> None:
        self.stage, self.play_part = make_stage(), play

    def play(self, job: tuple[int, Any], send: Line) -> None:
        """Sends the result of a part, and signs of life before."""
        connect(self.stage.actor, send)
        send(self.play_part(self.stage, *job, SignsOfLife(send)))

    def close(self) -> None:
        """Frees the simulator."""
        self.stage.close()


def play_parts(
    make_stage: Callable[[], Stage],
    play: Play,
    parts: Mapping[int, Any],
    *,
    deciding: AbstractContextManager[PolicyServer | None],
    workers: int,
    timeout: float,
    max_restarts: int,
) -> Generator[tuple[int, Any | None], None, None]:
    """Play the parts of an evaluation.

    Args:
        make_stage: picklable; builds where they are played.
        play: picklable; plays one, see :data:`Play`.
        parts: by index.
        deciding: entered while they are played; who answers what their actors ask.
        workers: number of processes, each with one stage; 0 plays in this one.
        timeout: seconds without a sign of life after which a worker counts as hung.
        max_restarts: how many dead or hung workers to replace before giving up.

    Yields:
        (index, result) as parts finish, with ``None`` where two simulators were lost with it.

    Raises:
        TooManyCrashesError: when workers keep dying.
        RuntimeError: when a worker met a programming error.
    """
    if not (workers and parts):
        with deciding:
            yield from _play_here(make_stage, play, parts)
        return
    pool = GuardedPool(
        Processes(partial(_PartPlayer, make_stage, play), preload=__name__),
        min(workers, len(parts)),
        timeout=timeout,
        max_restarts=max_restarts,
    )
    with closing(pool), deciding as server:
        jobs = {index: (index, part) for index, part in parts.items()}
        for index, found in pool.play(jobs, _ATTEMPTS, server=server):
            if isinstance(found, Lost):
                logger.warning("a simulator process %s; part %d is not counted", found.why, index)
                yield index, None
            else:
                yield index, found


def play_unfinished(
    make_stage: Callable[[], Stage],
    play: Play,
    parts: Sequence[Any],
    file: FinishedFile[Any] | None,
    on_part: Callable[[Any | None], None] | None,
    **how: Any,
) -> tuple[list[Any], list[int]]:
    """Play what an evaluation's file does not have, and add it there.

    Args:
        make_stage: see :func:`play_parts`.
        play: see :func:`play_parts`.
        parts: all parts.
        file: those that are finished already, if they are kept.
        on_part: called with each result as it comes, ``None`` for a crash; not with the file's.
        how: the others of :func:`play_parts`.

    Returns:
        The results of all parts in order, and the indices of those that crashed.
    """
    results = {} if file is None else dict(file.results)
    left = {index: part for index, part in enumerate(parts) if index not in results}
    crashed = []
    with closing(play_parts(make_stage, play, left, **how)) as playing:
        for index, result in playing:
            if result is None:
                crashed.append(index)
            else:
                results[index] = result
                if file is not None:
                    file.add(result)
            if on_part is not None:
                on_part(result)
    return [results[index] for index in sorted(results)], sorted(crashed)
