"""SHA-256 digests of what a later stage reads: a damaged file is refused, never used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from rftf_torchrl.files import to_plain, write_json
from rftf_torchrl.leftovers import DIGESTS_FILE

SHA256 = "sha256"
OWN_DIGEST = "content_digest"
"""Of a file of JSON: the entry with the digest of the others."""

BLOCK = 2**22
_OWN_CHECKSUMS = (".npz",)


def blocks(file: Path, size: int = BLOCK) -> Iterator[bytes]:
    """The content of a file, piece by piece."""
    with file.open("rb") as opened:
        while block := opened.read(size):
            yield block


def write_digests(folder: Path, leave_out: Collection[str] = ()) -> None:
    """Write ``digests.json``: the digest of every 4 MiB of every file in the folder.

    ``.npz`` archives have checksums of their own and are left out.

    Args:
        folder: the folder, otherwise finished.
        leave_out: names of files that are about to be removed.
    """
    files = (
        file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in leave_out
    )
    found = {
        file.relative_to(folder).as_posix(): [bytes_digest(block) for block in blocks(file)]
        for file in files
        if file.suffix not in _OWN_CHECKSUMS and file != folder / DIGESTS_FILE
    }
    write_json(folder / DIGESTS_FILE, {"block": BLOCK, SHA256: found})


def digest_problems(
    folder: Path, names: Collection[str] | None = None, *, all_named: bool = True
) -> list[str]:
    """List the files that differ from their digests; none where the folder has no digests.

    Args:
        folder: the folder.
        names: the files to compare, relative to the folder; by default all that had a digest.
        all_named: whether a file without a digest is a problem.

    Returns:
        One sentence for each file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "note.txt").write_text("one line")
        8
        >>> write_digests(folder)
        >>> digest_problems(folder)
        []
        >>> (folder / "note.txt").write_text("no line")
        7
        >>> digest_problems(folder)[0]
        'note.txt: differs from digests.json in bytes 0 to 7: copy it again from where it is \
whole, or, where you changed it yourself, remove digests.json'
    """
    file = folder / DIGESTS_FILE
    if not file.exists():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        size, known = int(content["block"]), dict(content[SHA256])
    except (ValueError, KeyError, TypeError) as error:
        return [f"{DIGESTS_FILE}: is damaged ({error!r}): copy it again, or remove it"]
    advice = (
        f"copy it again from where it is whole, or, where you changed it yourself, remove "
        f"{DIGESTS_FILE}"
    )
    problems = []
    for name in known if names is None else names:
        if not (folder / name).is_file():
            problems.append(f"{name}: missing, but {DIGESTS_FILE} names it: {advice}")
        elif name not in known:
            if all_named:
                problems.append(f"{name}: {DIGESTS_FILE} does not name it: {advice}")
        elif differs := _difference(folder / name, known[name], size):
            problems.append(f"{name}: differs from {DIGESTS_FILE} in {differs}: {advice}")
    return problems


def write_record(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write JSON that a later stage reads, with its own digest as the last entry.

    Args:
        path: the file, in an existing folder.
        content: as for :func:`write_json`.

    Raises:
        OSError: where the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "ended.json"
        >>> write_record(file, {"steps": 100})
        >>> read_record(file)
        {'steps': 100}
    """
    write_json(path, with_digest(content))


def read_record(path: str | Path, advice: str = "make it again or copy it again") -> dict[str, Any]:
    """Read what :func:`write_record` wrote; JSON without a digest is taken as it is.

    Args:
        path: the file.
        advice: what to do where it is damaged, for the error.

    Returns:
        The content, without the digest.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is no such JSON, or its content differs from its digest.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is truncated or no JSON: {advice}") from error
    try:
        return checked(content)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}: {advice}; where you changed it yourself, take out {OWN_DIGEST!r}"
        ) from error


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with the digest of them all."""
    plain = to_plain(content)
    return {**plain, OWN_DIGEST: {SHA256: canonical_digest(plain)}}


def checked(content: Any) -> dict[str, Any]:
    """Values without their digest, once it is the right one.

    Raises:
        ValueError: where it is not.
    """
    if not isinstance(content, dict):
        raise ValueError(f"expected entries by name, got a {type(content).__name__}")
    signed = any(isinstance(value, dict) and SHA256 in value for value in content.values())
    if OWN_DIGEST not in content and not signed:
        return content
    stored = content.pop(OWN_DIGEST, None)
    if stored != {SHA256: canonical_digest(content)}:
        raise ValueError("the entries differ from their digest")
    return content


def canonical_digest(content: Any) -> str:
    """The digest of plain values, whatever the order of entries and the space between them."""
    return bytes_digest(json.dumps(content, sort_keys=True).encode())


def bytes_digest(content: bytes | memoryview) -> str:
    """The SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def _difference(file: Path, expected: Any, size: int) -> str | None:
    """Which bytes of a file are the first ones that differ."""
    found = [bytes_digest(block) for block in blocks(file, size)]
    if found == expected:
        return None
    if not isinstance(expected, list) or len(found) != len(expected):
        return "its length"
    first = next(place for place, each in enumerate(found) if each != expected[place])
    stop = min((first + 1) * size, file.stat().st_size)
    return f"bytes {first * size} to {stop}"
