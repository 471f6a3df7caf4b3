"""Loaded first by a server of processes: the kernel then ends it with the process it serves."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1

if sys.platform == "linux" and "multiprocessing.forkserver" in sys.orig_argv[-1]:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
