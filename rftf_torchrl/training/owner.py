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

from rftf_torchrl.errors import UserError
from rftf_torchrl.files import write_json
from rftf_torchrl.leftovers import clear_leftovers


class FolderInUseError(UserError):
    """Another process is writing the folder."""


@contextmanager
def own_folder(folder: str | Path, stage: str = "run") -> Iterator[Path]:
    """Keep other processes from writing the same stage of a run while the block runs.

    The lock belongs to the process: the system lifts it when the process ends, however it ends, so
    that none is ever left behind. A folder that this process owns already is entered again. What
    killed writes left in it is removed first, and named in the log.

    Args:
        folder: the run's folder; made where it is missing.
        stage: what is written there; two stages of one run may be written at the same time.

    Yields:
        The folder.

    Raises:
        FolderInUseError: where another process owns it; says which, on which host, since when.

    Example:
        >>> import tempfile
        >>> with own_folder(tempfile.mkdtemp()) as folder:
        ...     sorted(file.name for file in folder.iterdir())
        ['.run.json', '.run.lock']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{stage}.lock", timeout=0, is_singleton=True)
    record = folder / f".{stage}.json"
    try:
        lock.acquire()
    except Timeout as error:
        raise FolderInUseError(
            f"the stage {stage!r} of {folder} is being written by {_owner(record)}: wait for "
            "it to end, stop it, or choose another output folder."
        ) from error
    outermost = lock.lock_counter == 1
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        write_json(record, owner)
        if outermost:
            clear_leftovers(folder)
        yield folder
    finally:
        if outermost:
            with suppress(FileNotFoundError):
                record.unlink()
        lock.release()


def _owner(record: Path) -> str:
    try:
        owner = json.loads(record.read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
