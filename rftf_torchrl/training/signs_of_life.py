"""Notices a process of torchrun's that lives and does nothing: stopped, or on a lost machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from rftf_torchrl.training.memory import parent_of

logger = logging.getLogger(__name__)

OFTEN = 0.5
"""Seconds between two signs of life, at most."""
AT_ONCE = 1.0
"""Most seconds that count between two looks: while this process is stopped itself, no time does."""
GRACE = 5.0
"""Seconds for the main thread to end in order; in a collective it hears of nothing."""
SILENT = "silent"
HOW_TO_GO_ON = "resume=true goes on from the newest checkpoint"
LOST = (
    "another process of this run has ended, or torchrun has ended all: the reason stands in that "
    f"process's own message or in torchrun's. {HOW_TO_GO_ON}"
)
NO_TORCHRUN = f"torchrun has ended without its processes, so the run ends. {HOW_TO_GO_ON}"


class SignsOfLife:
    """Counts in torchrun's store that this process lives, and watches that the others do.

    A thread does it, so that the main one may take as long as it likes. A process that is silent
    for too long is killed by those on its machine, which torchrun and all others notice. Where they
    cannot, they end by themselves.

    Args:
        timeout: seconds of silence.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._rank, self._world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*address, is_master=False, timeout=timedelta(seconds=timeout))
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        self._store = PrefixStore(f"signs_of_life/{attempt}", store)
        self._ended = threading.Event()
        self._has_said = False
        self._thread = threading.Thread(target=self._watch, name="signs of life", daemon=True)

    def __enter__(self) -> SignsOfLife:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(AT_ONCE)

    def say_what_happened(self) -> None:
        """Log why the run ends, once in this process."""
        if not self._has_said:
            self._has_said = True
            logger.error(self.what_happened())

    def what_happened(self) -> str:
        """Why the others are lost, as far as it is known."""
        with suppress(RuntimeError):  # the store ends with torchrun
            if self._store.check([SILENT]):
                return self._silence(int(self._store.get(SILENT)))
        return LOST

    def _silence(self, rank: int) -> str:
        return (
            f"process {rank} of this run has given no sign of life for {self._timeout:g} s "
            "(collector.timeout), so the run ends: it was stopped, or its machine does not answer. "
            f"{HOW_TO_GO_ON}"
        )

    def _watch(self) -> None:
        counts = dict.fromkeys(set(range(self._world)) - {self._rank}, 0)
        silent_for = dict.fromkeys(counts, 0.0)
        looked = time.monotonic()
        while not self._ended.wait(min(OFTEN, self._timeout / 10)):
            try:
                self._store.add(str(self._rank), 1)
                found = {rank: self._store.add(str(rank), 0) for rank in counts}
            except RuntimeError:
                self._end(NO_TORCHRUN)
                return
            now = time.monotonic()
            for rank, count in found.items():
                silent_for[rank] += min(now - looked, AT_ONCE)
                if count != counts[rank]:
                    silent_for[rank] = 0.0
            counts, looked = found, now
            longest = max(silent_for, key=silent_for.__getitem__)
            if silent_for[longest] > self._timeout:
                with suppress(RuntimeError):
                    self._store.set(SILENT, str(longest))
                self._end(self._silence(longest), kill=longest)
                return

    def _end(self, why: str, kill: int | None = None) -> None:
        """End the run: in order where the main thread can, and else at once.

        The reason is logged first: the main thread may be ended again while it ends.
        """
        if self._ended.is_set():
            return
        self._has_said = True
        logger.error(why)
        if kill is None or not _killed(kill):
            os.kill(os.getpid(), signal.SIGTERM)
        if not self._ended.wait(GRACE):
            os._exit(1)


def _killed(rank: int) -> bool:
    """Kill a process of the same torchrun; whether it was found, as on Linux it is."""
    name = f"RANK={rank}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(parent_of(folder)) != os.getppid():
                continue
            if name in Path(folder, "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
                return True
    return False
