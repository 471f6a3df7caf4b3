"""The output folder of a run and the JSON files in it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
        raise OSError(
            f"Cannot write to the output folder {folder}: {error.strerror}. Choose a folder that "
            "you may write to."
        ) from error
    return folder


def write_json_atomic(path: str | Path, obj: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one.

    JSON has no NaN and no infinity: such numbers become null.

    Args:
        path: the file.
        obj: mappings with string keys, lists, tuples, strings, numbers, booleans, None.

    Raises:
        TypeError: at anything else, with its place.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "result.json"
        >>> write_json_atomic(file, {"success": 0.5, "correlation": float("nan")})
        >>> json.loads(file.read_text())
        {'success': 0.5, 'correlation': None}
    """
    replace_text_atomic(Path(path), json.dumps(_plain(obj, "the object"), indent=2) + "\n")


def replace_text_atomic(path: Path, text: str) -> None:
    """Write text so that the file is either the old one or the whole new one.

    Args:
        path: the file, in an existing folder.
        text: its content.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "note.txt"
        >>> replace_text_atomic(file, "one line")
        >>> file.read_text()
        'one line'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
