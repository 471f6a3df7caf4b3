"""Child processes that end with the process that started them, whatever they are doing."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import ForkServerContext, ForkServerProcess


def _kill_when_closed(lifeline: Connection, process: int) -> None:
    """Let the kernel kill a process once nobody can write to the pipe any more."""
    if sys.platform == "linux":
        descriptor = lifeline.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        with suppress(ProcessLookupError):
            fcntl.fcntl(descriptor, fcntl.F_SETOWN, process)
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


class ChildProcess(ForkServerProcess):
    """Lives as long as a pipe that only its parent can write to.

    On Linux the kernel kills it: in an endless loop, in C code that holds the interpreter's lock,
    stopped, or still starting. Elsewhere it ends by itself, when it next looks at its parent.
    """

    def start(self) -> None:
        """Start it, by the server of processes."""
        self._lifeline, held = Pipe(duplex=False)
        super().start()
        _kill_when_closed(self._lifeline, self.pid or 0)
        self._lifeline.close()
        self._held = held

    def run(self) -> None:
        """Do the work, unless the parent died meanwhile."""
        _kill_when_closed(self._lifeline, os.getpid())
        if not self._lifeline.poll():
            super().run()

    def kill(self) -> None:
        """Kill it; the pipe reaches it even where the server of processes is dead."""
        self._held.close()
        super().kill()


class ChildContext(ForkServerContext):
    """The way of :mod:`multiprocessing` in which this library starts processes."""

    Process = ChildProcess
