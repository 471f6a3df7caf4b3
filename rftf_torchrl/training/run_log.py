"""What a run says: its lines in a file, and a line where nothing was said for a while."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rftf_torchrl.training import progress
from rftf_torchrl.training.progress import ProgressBar, duration

logger = logging.getLogger(__name__)

FILE = "log.txt"
SILENCE = 25.0
"""Seconds without a line after which there is one; half a minute is promised."""


class RunLog(logging.FileHandler):
    """Appends what is logged to a file, and logs how far a run is when that says nothing.

    Args:
        file: the file.
        clock: seconds, for tests.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(file, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        self._clock = clock
        self._last, self._since = "the start", clock()
        self._spoken = self._since

    def emit(self, record: logging.LogRecord) -> None:
        """Append a line."""
        self._spoken = self._clock()
        if record.name != __name__:
            self._last, self._since = record.getMessage().strip().partition("\n")[0], self._spoken
        super().emit(record)

    def watch(self, wait: Callable[[float], bool]) -> None:
        """Log how far the run is whenever nothing was logged for :data:`SILENCE`.

        Args:
            wait: waits for some seconds; true ends the watch.
        """
        while not wait(self._spoken + SILENCE - self._clock()):
            if self._clock() - self._spoken >= SILENCE:
                self._say_how_far()

    def _say_how_far(self) -> None:
        self._spoken = self._clock()  # also where the level of the loggers keeps the line back
        bars = [bar for bar in list(ProgressBar._instances) if hasattr(bar, "start_t")]
        for bar in bars:
            progress.logger.info("%s", bar.sentence())
        if not bars:
            since = duration(self._clock() - self._since)
            logger.info("at work for %s since: %s", since, self._last)


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Append what is logged to ``log.txt``, and let no half minute pass without a line.

    Where stderr is a terminal, bars show how far the run is, and lines of bars go to the file
    alone. A folder whose log is open already is left to it.

    Args:
        folder: an existing folder.
    """
    root, file = logging.getLogger(), Path(os.path.abspath(folder / FILE))
    if any(isinstance(h, RunLog) and h.baseFilename == str(file) for h in root.handlers):
        yield
        return
    log, ended = RunLog(file), threading.Event()
    watch = threading.Thread(target=log.watch, args=(ended.wait,), daemon=True)
    heard = [root]
    propagated = progress.logger.propagate
    if sys.stderr.isatty():
        heard.append(progress.logger)
        progress.logger.propagate = False
    for each in heard:
        each.addHandler(log)
    watch.start()
    try:
        yield
    except BaseException as error:
        what = f"stopped by {type(error).__name__}: {error}"
        log.handle(logging.makeLogRecord({"msg": what, "exc_info": sys.exc_info()}))
        raise
    finally:
        ended.set()
        watch.join()
        progress.logger.propagate = propagated
        for each in heard:
            each.removeHandler(log)
        log.close()
