"""Optional dependencies, imported where they are needed, with one error that names the extra."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import ModuleType


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what simulators print and warn of as they are imported and made."""
    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def optional_module(name: str, extra: str, what: str | None = None) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        name: the module.
        extra: the extra that installs it.
        what: what needs it, for the error.

    Raises:
        ModuleNotFoundError: if it is not installed; names the extra.
    """
    package = name.split(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        install = f"pip install 'rftf-torchrl[{extra}]'"
        raise ModuleNotFoundError(
            f"{package} is not installed: {install}."
            if what is None
            else f"{what} needs the package {package}: {install}"
        ) from error
    return importlib.import_module(name)


def transformers_module(what: str | None = None) -> ModuleType:
    """Import ``transformers``."""
    return optional_module("transformers", "transformers", what)


def ray_module() -> ModuleType:
    """Import ``ray``."""
    return optional_module("ray", "ray", "collector.engine=ray")


def metaworld_module(name: str) -> ModuleType:
    """Import a module of Meta-World, or of what it needs."""
    optional_module("packaging", "metaworld", "Meta-World")
    return optional_module(name, "metaworld", "Meta-World")


def lerobot_rewards_module(name: str) -> ModuleType:
    """Import a module of LeRobot as of 0.6, which has reward models."""
    package = optional_module("lerobot", "lerobot", "A reward model of LeRobot")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(str(error.name)):
            raise
        raise ModuleNotFoundError(
            f"there is no {name}: LeRobot has reward models as of 0.6 (for Python 3.12), and "
            f"{getattr(package, '__version__', 'an older one')} is installed. Install another: pip "
            "install -U 'rftf-torchrl[lerobot]'"
        ) from error
