"""A folder that one process at a time may write."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from rftf_torchrl.files import write_json

LOCK_FILE = ".lock"
OWNER_FILE = ".owner.json"


class FolderInUseError(RuntimeError):
    """Another process is writing the folder."""


@contextmanager
def own_folder(folder: str | Path) -> Iterator[Path]:
    """Keep other processes from writing a folder while the block runs.

    The lock belongs to the process: the system lifts it when the process ends, however it ends, so
    that none is ever left behind. A folder that this process owns already is entered again.

    Args:
        folder: the folder; made where it is missing.

    Yields:
        The folder.

    Raises:
        FolderInUseError: where another process owns it; says which, on which host, since when.

    Example:
        >>> import tempfile
        >>> with own_folder(tempfile.mkdtemp()) as folder:
        ...     sorted(file.name for file in folder.iterdir())
        ['.lock', '.owner.json']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise FolderInUseError(
            f"{folder} is being written by {_owner(folder)}: wait for it to end, stop it, or "
            "choose another output folder."
        ) from error
    outermost = lock.lock_counter == 1
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        write_json(folder / OWNER_FILE, owner)
        yield folder
    finally:
        if outermost:
            with suppress(FileNotFoundError):
                (folder / OWNER_FILE).unlink()
        lock.release()


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
