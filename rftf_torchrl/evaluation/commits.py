"""The commit at which code runs from a git clone."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path


def git_commit(package: str) -> str | None:
    """The commit of the clone that a package is imported from, with ``-dirty`` where it is changed.

    Args:
        package: its name.

    Returns:
        As of :func:`file_commit`; ``None`` where the package is missing, too.

    Example:
        >>> git_commit("no_such_package") is None
        True
    """
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else file_commit(spec.origin)


def file_commit(file: str | Path) -> str | None:
    """The commit of the clone that a file belongs to, with ``-dirty`` where the clone is changed.

    Args:
        file: its path.

    Returns:
        40 hexadecimal digits; ``None`` where the file is in no clone of its own, such as one
        installed below somebody else's, or git can't be asked.

    Example:
        >>> file_commit("no_such_file.py") is None
        True
    """
    file = Path(file).resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file.parent, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True, encoding="utf-8"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
