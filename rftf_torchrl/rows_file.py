"""Bytes appended piece by piece: whole after a kill, checked before they are gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rftf_torchrl.digests import bytes_digest, canonical_digest
from rftf_torchrl.files import name_in_errors, to_disk


class RowsFile:
    """Bytes appended piece by piece, with a line of JSON for each piece; a kill loses one piece.

    A piece counts when its line is there. What a killed process has left behind the last one is cut
    off when the file is opened again. Each line has a digest of its piece, its record and all
    before, which is checked then.

    Args:
        file: the bytes; the lines are beside it, in ``<file>.jsonl``.

    Attributes:
        records: what was said of each piece.

    Raises:
        ValueError: where a line or its piece is damaged.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "rows"
        >>> RowsFile(file).append(b"abc", {"name": "first"})
        >>> _ = file.open("ab").write(b"half a piece")
        >>> RowsFile(file).records, file.read_bytes()
        ([{'name': 'first'}], b'abc')
    """

    def __init__(self, file: Path) -> None:
        self.file, self.lines = file, file.with_name(f"{file.name}.jsonl")
        self.records: list[dict[str, Any]] = []
        self._ends: list[tuple[int, int]] = [(0, 0)]
        self._digests = [""]
        self.file.touch()
        self.lines.touch()
        size = self.file.stat().st_size
        for number, line in enumerate(self.lines.read_bytes().split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                if row["end"] > size:
                    break
                content = self._between(self._ends[-1][0], row["end"])
                damaged = row["digest"] != self._digest(content, row["record"])
            except (ValueError, KeyError, TypeError):
                damaged = True
            if damaged:
                raise ValueError(
                    f"{self.lines}, line {number}: the line, or its bytes in {self.file.name}, are "
                    "damaged or of an earlier version. Remove both files, and they are made again."
                )
            self._add(row, len(line) + 1)
        self.cut(len(self.records))

    def append(self, content: bytes | memoryview, record: Mapping[str, Any]) -> None:
        """Add a piece.

        Raises:
            OSError: where the disk is full; the pieces before are whole, and others can follow.
        """
        with name_in_errors(f"Cannot write {self.file}"):
            self.cut(len(self.records))  # what an append that failed has left
            with self.file.open("ab") as file:
                size = file.write(content)
            to_disk(self.file)
            row = {
                "end": self._ends[-1][0] + size,
                "record": dict(record),
                "digest": self._digest(content, record),
            }
            line = json.dumps(row).encode() + b"\n"
            with self.lines.open("ab") as file:
                file.write(line)
        self._add(row, len(line))

    def read(self, place: int) -> bytes:
        """The content of a piece."""
        return self._between(self._ends[place][0], self._ends[place + 1][0])

    def cut(self, count: int) -> None:
        """Keep the first ``count`` pieces."""
        del self.records[count:], self._ends[count + 1 :], self._digests[count + 1 :]
        end, at = self._ends[-1]
        os.truncate(self.lines, at)
        os.truncate(self.file, end)

    def _add(self, row: Mapping[str, Any], line: int) -> None:
        self.records.append(row["record"])
        self._ends.append((row["end"], self._ends[-1][1] + line))
        self._digests.append(row["digest"])

    def _between(self, begin: int, end: int) -> bytes:
        with self.file.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def _digest(self, content: bytes | memoryview, record: Mapping[str, Any]) -> str:
        """What stands in the line of the next piece."""
        return canonical_digest([self._digests[-1], record, bytes_digest(content)])
