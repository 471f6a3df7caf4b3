"""Public names at the places where they were before version 0.2, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def former_names(package: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that finds public names in the flat list.

    Example:
        >>> former_names("rftf_torchrl.modules")("load_policy").__module__
        'rftf_torchrl.policies.file'
    """

    def find(name: str) -> Any:
        public = import_module("rftf_torchrl")
        if name not in public.__all__:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        warnings.warn(
            f"{package}.{name} is now imported by: from rftf_torchrl import {name}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(public, name)

    return find
