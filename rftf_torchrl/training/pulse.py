"""Signs of life between the processes of a run, and what is said where one of them is lost."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from itertools import count

import torch.distributed as dist

from rftf_torchrl.errors import UserError
from rftf_torchrl.training.processes import Processes

logger = logging.getLogger(__name__)

BEAT = 0.25
"""Seconds between two signs of life."""
ENDED = b"ended"
ERROR = "error"
GO_ON = "resume=true goes on from the newest checkpoint"


class LostProcessError(UserError):
    """Another process of the run has failed or was killed."""


class Pulse:
    """Beats while its block runs, and ends all processes where another one no longer does.

    The first process speaks for all: an error of another one is raised in it, by number. Where the
    first one itself is silent, the next one speaks.

    Args:
        store: through which the processes see each other.
        processes: the group.
        timeout: seconds without a beat after which a process counts as lost.
    """

    def __init__(self, store: dist.Store, processes: Processes, timeout: float) -> None:
        self._store, self._processes, self._timeout = store, processes, timeout
        self._beats = [f"beat {rank}" for rank in range(processes.world)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(store.clone(),), daemon=True)
        me = (socket.gethostname(), os.getpid())
        self._who: list[tuple[str, int]] = [me] * processes.world
        dist.all_gather_object(self._who, me, group=processes.patient)

    def __enter__(self) -> Pulse:
        self._store.set(self._beats[self._processes.rank], "0")
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, place: object) -> None:
        try:
            if error is not None:
                self._settle(error)
        finally:
            self._over.set()
            self._thread.join()
            self._store.set(self._beats[self._processes.rank], ENDED.decode())

    def _settle(self, error: BaseException) -> None:
        """End quietly, but tell the first process why; in that one, raise what the others tell."""
        ended_from_outside = isinstance(error, (KeyboardInterrupt, SystemExit))
        if self._processes.rank:
            if not ended_from_outside:
                known = isinstance(error, (ValueError, OSError, UserError, FloatingPointError))
                text = str(error) if known else "".join(traceback.format_exception(error))
                self._store.compare_set(ERROR, "", f"{self._name(self._processes.rank)}: {text}")
            sys.exit(1)
        if isinstance(error, SystemExit) or type(error) in (RuntimeError, dist.DistBackendError):
            try:
                reason = self._reason()
            except SystemExit:  # as torchrun ends all processes where one has died
                reason = self._reason()
            if reason:
                raise LostProcessError(reason) from error

    def _reason(self) -> str | None:
        """Why this process could not go on: what another one has told, or which one is gone."""
        host = self._who[0][0]
        for _ in range(10):
            if self._store.check([ERROR]):
                return self._store.get(ERROR).decode()
            beats = self._store.multi_get(self._beats)
            for rank, (where, number) in enumerate(self._who):
                if where == host and beats[rank] != ENDED and not _lives(number):
                    return f"{self._name(rank)} was killed; {GO_ON}"
            time.sleep(0.1)
        return None

    def _watch(self, store: dist.Store) -> None:
        beats: dict[int, bytes] = {}
        missed: Counter[int] = Counter()
        try:
            for number in count(1):
                if self._over.wait(BEAT):
                    return
                store.set(self._beats[self._processes.rank], str(number))
                for rank, beat in enumerate(store.multi_get(self._beats)):
                    # counted by own beats: a time in which all processes were stopped is none
                    missed[rank] = missed[rank] + 1 if beat == beats.get(rank) != ENDED else 0
                    beats[rank] = beat
                silent = [rank for rank in missed if missed[rank] * BEAT >= self._timeout]
                if silent:
                    self._end(silent)
        except dist.DistError:
            self._say("torchrun has ended, and so does what it started")
            os._exit(1)

    def _end(self, silent: list[int]) -> None:
        """Say it, end what is stopped on this machine, and this process with its main thread."""
        speaker = min(set(range(self._processes.world)) - set(silent))
        if self._processes.rank == speaker:
            names = " and ".join(map(self._name, silent))
            self._say(f"{names} gave no sign of life for {self._timeout:g} s; {GO_ON}")
        else:
            time.sleep(1)
        for rank in silent:
            host, number = self._who[rank]
            if host == self._who[self._processes.rank][0] and _lives(number):
                os.kill(number, signal.SIGKILL)
        os._exit(1)

    def _name(self, rank: int) -> str:
        host, number = self._who[rank]
        return f"process {rank} of {self._processes.world} ({number} on {host})"

    def _say(self, line: str) -> None:
        logging.disable(logging.NOTSET)  # processes other than the first one are quiet
        logger.error("%s", line)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True
