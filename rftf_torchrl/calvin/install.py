"""Find the user's calvin_env, or say what is missing and what to type."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from rftf_torchrl.optional import quiet

_HELP = (
    "calvin_env is not on PyPI. Clone it and install the clone in place:\n"
    "    git clone https://github.com/mees/calvin_env\n"
    "    pip install -e calvin_env"
)
_MODULES = ("calvin_env.envs.play_table_env", "calvin_env.envs.tasks")
_FOLDERS = ("conf/scene", "conf/robot", "conf/cameras", "data/calvin_table_D")


class CalvinNotInstalledError(ImportError):
    """calvin_env or something that it needs is missing; the message says what to type."""


def require_calvin_env() -> Path:
    """Import calvin_env and return the folder of the clone, which holds ``conf`` and ``data``.

    Raises:
        CalvinNotInstalledError: when calvin_env, one of its dependencies, or its folders ``conf``
            and ``data`` can't be found.

    Example:
        >>> from rftf_torchrl import CalvinNotInstalledError, require_calvin_env
        >>> try:
        ...     found = (require_calvin_env() / "conf").is_dir()
        ... except CalvinNotInstalledError:
        ...     found = True
        >>> found
        True
    """
    spec = importlib.util.find_spec("calvin_env")
    if spec is None or spec.origin is None:
        found = [] if spec is None else list(spec.submodule_search_locations or ())
        hidden = f" The folder {found[0]} would hide it: start Python elsewhere." if found else ""
        raise CalvinNotInstalledError(
            f"CALVIN's simulator is not installed.{hidden}{_python()} {_HELP}"
        )
    root = Path(spec.origin).resolve().parents[1]
    for folder in _FOLDERS:
        if not (root / folder).is_dir():
            raise CalvinNotInstalledError(
                f"calvin_env was found, but not its folder {folder!r} beside the package: it "
                f"works only from a clone installed with -e. {_HELP}"
            )
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        raise CalvinNotInstalledError(
            "calvin_env was found outside of any git repository, and it asks git for its own "
            f"commit when it starts. {_HELP}"
        )
    for module in _MODULES:
        try:
            with quiet():
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            name = "pybullet" if error.name == "pybullet_utils" else error.name
            hint = _python() if name == "pybullet" else ""
            raise CalvinNotInstalledError(
                f"calvin_env was found, but the package {name!r} that it needs was not.{hint} "
                "Install what calvin_env asks for: pip install -e calvin_env"
            ) from error
    return root


def _python() -> str:
    """What is wrong with this Python, if anything."""
    if sys.version_info < (3, 12):
        return ""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return (
        f" PyBullet, which it runs on, has wheels for Python 3.10 and 3.11 only, and this is "
        f"Python {version}: make an environment with one of those first."
    )
