"""What killed writes leave behind: marked while a process writes it, removed once none does."""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

DIGESTS_FILE = "digests.json"
"""In a folder that was written whole, and so holds nothing that is half written."""

_LEFTOVER = re.compile(
    r"\..+\.[0-9a-f]{8}\.tmp(\.[^.]+)?"
    r"|\..+\.partial-[0-9a-f]{8}"
    r"|\.checkpoint-\d+\.torchrl\.(stage|archive|backup|delete)-[0-9a-f]{32}"
)
_MARK = ".writing"
_UNPACKED = "rftf_torchrl"
logger = logging.getLogger(__name__)


def hidden_file(path: Path) -> Path:
    """The name under which a file is written before it gets its own."""
    return path.with_name(f".{path.stem}.{uuid4().hex[:8]}.tmp{path.suffix}")


def mark_file(file: Path) -> BinaryIO:
    """Make a file that is no leftover until it is closed, or its process has ended.

    Raises:
        OSError: where it cannot be made.
    """
    while True:
        opened = file.open("wb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        if file.exists():
            return opened
        opened.close()  # removed between the two lines above


def mark_folder(path: Path) -> tuple[Path, BinaryIO]:
    """Make a hidden folder beside ``path`` that is no leftover until the mark is closed.

    Raises:
        OSError: where it cannot be made.
    """
    while True:
        hidden = path.with_name(f".{path.name}.partial-{uuid4().hex[:8]}")
        hidden.mkdir(parents=True)
        with suppress(FileNotFoundError):
            return hidden, mark_file(hidden / _MARK)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of the system's temporary one, for the block alone and for this user alone.

    Example:
        >>> with temporary_folder() as folder:
        ...     folder.is_dir()
        True
        >>> folder.exists()
        False
    """
    folder, mark = mark_folder(Path(tempfile.gettempdir(), _UNPACKED))
    folder.chmod(0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        mark.close()


def clear_leftovers(folder: str | Path) -> list[Path]:
    """Remove what killed writes left in a folder, and what they unpacked for themselves.

    What a living process is writing stays. One line of the log names what was removed.

    Args:
        folder: searched with all below it; the system's temporary folder is searched too.

    Returns:
        What was removed.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".policy.0123abcd.tmp.safetensors").touch()
        >>> [file.name for file in clear_leftovers(folder)]
        ['.policy.0123abcd.tmp.safetensors']
    """
    found = [*_below(Path(folder)), *_beside(Path(tempfile.gettempdir(), _UNPACKED))]
    return _clear(found, folder)


def clear_beside(path: Path) -> list[Path]:
    """Remove what killed writes of one folder left beside it."""
    return _clear(_beside(path), path)


def _clear(found: list[Path], where: str | Path) -> list[Path]:
    removed = {left: size for left in found if (size := _remove(left)) is not None}
    if removed:
        logger.info(
            "%s: removed what killed writes left, %.1f MiB: %s",
            where,
            sum(removed.values()) / 2**20,
            ", ".join(left.name for left in removed),
        )
    return list(removed)


def _below(folder: Path) -> list[Path]:
    found = []
    for place, folders, files in os.walk(folder):
        if DIGESTS_FILE in files:
            folders.clear()
            continue
        named = [name for name in (*folders, *files) if _LEFTOVER.fullmatch(name)]
        found += [Path(place, name) for name in sorted(named)]
        folders[:] = sorted({*folders}.difference(named))
    return found


def _beside(path: Path) -> list[Path]:
    return sorted(left for left in path.parent.glob(f".{glob.escape(path.name)}.partial-*"))


def _remove(left: Path) -> int | None:
    """The size of what was removed, None where it is being written or cannot be removed."""
    mark = left / _MARK if left.is_dir() else left
    try:
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()  # fails where its maker has just written its mark
            return 0
        if not mark.exists():  # of an earlier version
            return _delete(left)
        with mark.open("rb+") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _delete(left)
    except OSError:
        return None


def _delete(left: Path) -> int:
    files = [left, *left.rglob("*")] if left.is_dir() else [left]
    size = sum(file.lstat().st_size for file in files if file.is_file())
    if left.is_dir():
        shutil.rmtree(left)
    else:
        left.unlink()
    return size
