"""Files and folders written whole or not at all. Every file of this library is written here."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from rftf_torchrl.leftovers import hidden_file, mark_file

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(path: str | os.PathLike[str], size: int = 0) -> Iterator[Path]:
    """Write a file so that it is either what was there before or the whole new one.

    Args:
        path: the file, in an existing folder.
        size: its size in bytes where that is known: nothing is begun that does not fit on the disk.

    Yields:
        The path of an empty hidden file beside it, with the same suffix. Write there; when the
        block ends without an error, the file is on the disk under its name. It may be read by
        whom the ``umask`` allows.

    Raises:
        OSError: where the file cannot be written; the message names it.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with whole_file(file) as hidden:
        ...     size = hidden.write_text("one line")
        >>> file.read_text(encoding="utf-8")
        'one line'
    """
    path = Path(path)
    hidden = hidden_file(path)
    try:
        with name_in_errors(f"Cannot write {path}"):
            check_space(path.parent, size)
            with mark_file(hidden):
                yield hidden
                to_disk(hidden)
                os.replace(hidden, path)
            names_to_disk(path.parent)
    finally:
        hidden.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Write text whole or not at all, in UTF-8, with lines that end as in ``text``.

    Args:
        path: the file, in an existing folder.
        text: its content.

    Raises:
        OSError: where the file cannot be written.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_text(file, "Grüße\n")
        >>> file.read_bytes()
        b'Gr\xc3\xbc\xc3\x9fe\n'
    """
    with whole_file(path) as hidden:
        hidden.write_bytes(text.encode("utf-8"))


def append_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Append lines to a file; where they cannot be written, the file stays as it was.

    Args:
        path: the file; it may exist.
        text: the lines.

    Raises:
        OSError: where they cannot be written.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "table.csv"
        >>> append_text(file, "0,0.5\n")
        >>> append_text(file, "1,0.25\n")
        >>> file.read_text(encoding="utf-8")
        '0,0.5\n1,0.25\n'
    """
    with name_in_errors(f"Cannot write {path}"):
        before = os.path.getsize(path) if os.path.exists(path) else 0
        try:
            with open(path, "ab") as file:
                file.write(text.encode("utf-8"))
            to_disk(Path(path))
        except OSError:
            with suppress(OSError):
                os.truncate(path, before)
            raise


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write JSON whole or not at all.

    JSON has no NaN and no infinity: such numbers become null.

    Args:
        path: the file, in an existing folder.
        obj: mappings with string keys, lists, tuples, strings, numbers, booleans, None.

    Raises:
        TypeError: at anything else, with its place.
        OSError: where the file cannot be written.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "result.json"
        >>> write_json(file, {"success": 0.5, "correlation": float("nan")})
        >>> json.loads(file.read_text(encoding="utf-8"))
        {'success': 0.5, 'correlation': None}
    """
    write_text(path, json.dumps(to_plain(obj), indent=2) + "\n")


write_json_atomic = write_json  # its first name


def prepare_output(folder: str | Path) -> Path:
    """Make the output folder and try to write in it, before any time goes into computing.

    Args:
        folder: the folder; it may exist.

    Returns:
        The folder.

    Raises:
        OSError: where it cannot be made or written.

    Example:
        >>> prepare_output(tempfile.mkdtemp()).is_dir()
        True
    """
    folder = Path(folder)
    with name_in_errors(f"Cannot write to the output folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


class DiskError(OSError):
    """An error of the system at a file, whose message says what was being done."""


def climbs_out(name: str) -> bool:
    """Whether a relative path that data name leaves the folder that it is in.

    Example:
        >>> climbs_out("a/b.mp4"), climbs_out("../b.mp4"), climbs_out("/etc/b.mp4")
        (False, True, True)
    """
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root) or ".." in {
        *PurePosixPath(name).parts,
        *windows.parts,
    }


def write_inside(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Write files whose names come from data, and none of them outside the folder.

    Args:
        folder: an existing one.
        files: contents by relative path.

    Raises:
        ValueError: where a name leaves the folder; then nothing is written.
    """
    outside = sorted(name for name in files if climbs_out(name))
    if outside:
        raise ValueError(
            f"{', '.join(map(repr, outside))}: expected names of files inside a folder; what names "
            "these would write elsewhere on this disk, so do not use it"
        )
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def to_disk(place: Path) -> None:
    """Return once what was written to a file is on the disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_to_disk(folder: Path) -> None:
    """Return once the names in a folder are on the disk, where the file system can tell."""
    with suppress(OSError):
        to_disk(folder)


def check_space(folder: Path, size: int) -> None:
    """Stop before writing what the disk of a folder has no room for.

    Raises:
        OSError: with the space that is needed and the space that is free.
    """
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < size:
        raise OSError(
            errno.ENOSPC,
            f"it needs {size / 2**20:.1f} MiB, and {disk.free / 2**20:.1f} MiB are free",
        )


def reserve(file: BinaryIO, size: int) -> None:
    """Make an empty file so long, with blocks on the disk for all of it.

    Raises:
        OSError: where the disk has no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))


def give_blocks(path: str | os.PathLike[str]) -> None:
    """Give a new file of zeros blocks for all of it: a mapped write to what has none is a SIGBUS.

    Raises:
        OSError: where the disk has no room.
    """
    with open(path, "r+b") as file:
        reserve(file, os.path.getsize(path))


@contextmanager
def name_in_errors(what: str) -> Iterator[None]:
    """Let the system's errors in a block say what was being done, and what to do.

    Raises:
        OSError: with the number of the one that was raised.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        full = error.errno in _FULL
        advice = "Make room on the disk" if full else "Choose a folder that you may write to"
        named = DiskError(f"{what}: {error.strerror or error}. {advice}.")
        named.errno = error.errno
        raise named from error


def to_plain(obj: Any) -> Any:
    """What JSON holds of an object; see :func:`write_json`."""
    return _plain(obj, "the object")


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, expected strings as keys.")
        return {key: _plain(item, f"{where}['{key}']") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise TypeError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold: turn it into numbers, "
        "strings or lists first."
    )
