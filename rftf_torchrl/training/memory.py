"""The peak memory of a run, its worker processes included."""

from __future__ import annotations

import resource
import sys
import threading
from contextlib import suppress
from pathlib import Path

_GIB = 2**30


class PeakMemory:
    """Watch the memory of this process and its descendants while the ``with`` block runs.

    On Linux a thread adds up the proportional set sizes (memory shared between processes counts
    once) every ``interval`` seconds. Elsewhere the peak is that of this process alone.

    Args:
        interval: seconds between two looks.

    Attributes:
        gib: the largest sum seen so far, in GiB.
        whole_tree: whether descendants are counted.

    Example:
        >>> with PeakMemory(interval=0.1) as memory:
        ...     block = bytearray(2**20)
        >>> memory.gib > 0
        True
    """

    def __init__(self, interval: float = 2.0) -> None:
        self.gib = 0.0
        self.whole_tree = Path("/proc/self/smaps_rollup").exists()
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()

    def _look(self) -> None:
        if self.whole_tree:
            now = sum(map(_proportional_bytes, _tree()))
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        self.gib = max(self.gib, now / _GIB)

    def __enter__(self) -> PeakMemory:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()


def parent_of(folder: Path) -> str:
    """The number of the parent of the process of a folder in ``/proc``; any bytes may name it.

    Raises:
        OSError: where the process has ended.
    """
    return (
        (folder / "stat")
        .read_text(encoding="utf-8", errors="replace")
        .rpartition(")")[2]
        .split()[1]
    )


def _tree() -> list[str]:
    """This process and its descendants, by process number."""
    parents: dict[str, list[str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended
            parents.setdefault(parent_of(folder), []).append(folder.name)
    found = [Path("/proc/self").resolve().name]
    for process in found:
        found += parents.get(process, [])
    return found


def _proportional_bytes(process: str) -> int:
    try:
        lines = Path("/proc", process, "smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:  # the process has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
