"""How long somebody was watched, which is not how long they were silent."""

from __future__ import annotations

import time
from threading import Lock

_LONGEST_GAP = 2.0


class WatchClock:
    """Seconds in which this process watched; it is called every second or so, by any thread.

    A process that was stopped (Ctrl-Z) did not watch: messages came meanwhile, or those who send
    them were stopped too. Of a longer gap between two calls two seconds count.
    """

    def __init__(self) -> None:
        self._lock, self._called, self._seconds = Lock(), time.monotonic(), 0.0

    def __call__(self) -> float:
        """The seconds so far."""
        with self._lock:
            now = time.monotonic()
            self._seconds += min(now - self._called, _LONGEST_GAP)
            self._called = now
            return self._seconds
