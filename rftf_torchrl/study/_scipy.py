"""SciPy's statistics, which only studies need."""

from __future__ import annotations

import importlib.util
from types import ModuleType


def scipy_stats() -> ModuleType:
    """``scipy.stats``, or an error that says how to get it."""
    if importlib.util.find_spec("scipy") is None:
        raise ModuleNotFoundError(
            "the statistics of a study need the package scipy: pip install 'rftf-torchrl[study]'"
        )
    return importlib.import_module("scipy.stats")
