"""Files and folders written whole or not at all. Every file of this library is written here."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that it is either what was there before or the whole new one.

    Args:
        path: the file, in an existing folder.

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
        >>> file.read_text()
        'one line'
    """
    path = Path(path)
    hidden = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        hidden.touch()
        mode = hidden.stat().st_mode
        yield hidden
        hidden.chmod(mode)  # safetensors makes a file of its own, for its owner alone
        _to_disk(hidden)
        os.replace(hidden, path)
    except OSError as error:
        raise _named(error, f"Cannot write {path}") from error
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
        >>> json.loads(file.read_text())
        {'success': 0.5, 'correlation': None}
    """
    write_text(path, json.dumps(_plain(obj, "the object"), indent=2) + "\n")


write_json_atomic = write_json  # its first name


def write_safetensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    """Write tensors and metadata to one safetensors file, whole or not at all.

    Args:
        path: the file, in an existing folder.
        tensors: contiguous, and no two of the same memory.
        metadata: strings by name.

    Raises:
        OSError: where the file cannot be written.

    Example:
        >>> from safetensors.torch import load_file
        >>> file = Path(tempfile.mkdtemp()) / "one.safetensors"
        >>> write_safetensors(file, {"weight": Tensor([1.0])}, {"format": "mine"})
        >>> load_file(file)
        {'weight': tensor([1.])}
    """
    with whole_file(path) as hidden:
        try:
            save_file(tensors, hidden, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error


@contextmanager
def open_safetensors(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a safetensors file to read.

    Args:
        path: the file.

    Yields:
        What :func:`safetensors.safe_open` yields.

    Raises:
        FileNotFoundError: where there is no such file, or a folder.
        ValueError: where it is no whole safetensors file.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "one.safetensors"
        >>> write_safetensors(file, {"weight": Tensor([1.0])}, {"format": "mine"})
        >>> with open_safetensors(file) as opened:
        ...     opened.metadata()
        {'format': 'mine'}
    """
    if not Path(path).is_file():
        is_folder = Path(path).is_dir()
        raise FileNotFoundError(
            f"{path} is a folder, expected a file" if is_folder else f"there is no file {path}"
        )
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def made_by_entry(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """Settings that made a file, as an entry of its metadata."""
    return {} if settings is None else {"made_by": json.dumps(settings)}


def read_made_by(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the settings that made a policy or a value model.

    Args:
        path: the safetensors file.

    Returns:
        Values by full name, such as ``"env.chunk_size"``; empty where the file says none.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "one.safetensors"
        >>> write_safetensors(file, {"weight": Tensor([1.0])}, made_by_entry({"seed": 3}))
        >>> read_made_by(file)
        {'seed': 3}
    """
    with open_safetensors(path) as file:
        found: dict[str, Any] = json.loads((file.metadata() or {}).get("made_by", "{}"))
    return found


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _named(error, f"Cannot write to the output folder {folder}") from error
    return folder


class NewFolder:
    """A folder that is hidden beside its place until all of it is written.

    Args:
        path: the folder to make. It must not exist.
        content: what it will hold, for messages.

    Attributes:
        hidden: where to write.

    Raises:
        FileExistsError: where ``path`` exists.
        OSError: where the folder cannot be written.

    Example:
        >>> place = Path(tempfile.mkdtemp()) / "data"
        >>> folder = NewFolder(place, "data")
        >>> write_text(folder.hidden / "note.txt", "one line")
        >>> place.exists()
        False
        >>> folder.publish()
        >>> [file.name for file in place.iterdir()]
        ['note.txt']
    """

    def __init__(self, path: Path, content: str) -> None:
        self.path, self.content = path, content
        if path.exists():
            raise FileExistsError(
                f"{path} exists, and {content} are never overwritten: choose another folder or "
                "remove it."
            )
        self.hidden = path.parent / f".{path.name}.partial-{uuid.uuid4().hex[:8]}"
        try:
            self.hidden.mkdir(parents=True)
        except OSError as error:
            raise _named(error, f"Cannot write {content} to {path}") from error

    def publish(self, part: str = ".") -> None:
        """Give the folder, or one part of it, its name.

        Raises:
            FileExistsError: where the folder appeared meanwhile; the hidden one stays.
        """
        whole = self.hidden / part
        if self.path.exists():
            raise FileExistsError(
                f"{self.path} was made by another process meanwhile; the {self.content} are in "
                f"{whole}."
            )
        for file in whole.rglob("*"):
            if file.is_file():
                _to_disk(file)
        os.replace(whole, self.path)
        self.discard()

    def discard(self) -> None:
        """Remove what is hidden."""
        shutil.rmtree(self.hidden, ignore_errors=True)


def _to_disk(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _named(error: OSError, what: str) -> OSError:
    full = error.errno == errno.ENOSPC
    advice = "Make room on the disk" if full else "Choose a folder that you may write to"
    return OSError(f"{what}: {error.strerror or error}. {advice}.")


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
