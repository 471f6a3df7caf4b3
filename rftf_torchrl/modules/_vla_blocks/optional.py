"""The optional dependency."""

from __future__ import annotations

import importlib
from types import ModuleType


def transformers(what: str) -> ModuleType:
    """The package ``transformers``, or one error that says what needs it and how to install it."""
    try:
        module = importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            f"{what} needs the package transformers: pip install 'rftf-torchrl[transformers]'"
        ) from error
    for part in ("models.gpt2", "models.gpt2.modeling_gpt2", "models.clip"):
        importlib.import_module(f"transformers.{part}")
    return module
