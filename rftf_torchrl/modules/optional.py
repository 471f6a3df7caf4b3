"""Optional dependencies, imported where they are needed, with one error that names the extra."""

from __future__ import annotations

import importlib
from types import ModuleType


def optional_module(name: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Raises:
        ImportError: if it is not installed; names the extra that installs it.
    """
    package = name.split(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"{package} is not installed: pip install 'rftf-torchrl[{extra}]'."
        ) from error
    return importlib.import_module(name)


def transformers_module() -> ModuleType:
    """Import ``transformers``."""
    return optional_module("transformers", "transformers")
