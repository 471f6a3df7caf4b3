"""The parts of ``transformers`` that GR-MG and Seer are built on."""

from __future__ import annotations

import importlib
from types import ModuleType

from rftf_torchrl.optional import transformers_module


def transformers(what: str) -> ModuleType:
    """The package, or one error that says what needs it and how to install it."""
    module = transformers_module(what)
    for part in ("models.gpt2", "models.gpt2.modeling_gpt2", "models.clip"):
        importlib.import_module(f"transformers.{part}")
    return module
