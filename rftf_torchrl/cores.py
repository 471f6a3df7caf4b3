"""How many processor cores there are."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The processor cores that this process may use, of which a scheduler may have given a few.

    Example:
        >>> usable_cores() >= 1
        True
    """
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1
