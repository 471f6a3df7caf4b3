"""The file to which an evaluation that may be stopped adds each finished part."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from rftf_torchrl.digests import checked, with_digest
from rftf_torchrl.files import append_text, write_text

Result = TypeVar("Result", bound=Any)


class FinishedFile(ABC, Generic[Result]):
    """A file with one finished part of an evaluation a line, to which it returns.

    The first line holds the settings, and only the same settings may add to the file. A last line
    that a kill cut short is dropped.

    Args:
        path: the file; it may exist.
        settings: all that decides the results, as plain numbers and strings.

    Attributes:
        what: the part in a word, of the subclass, as ``"chain"``.
        results: what is in the file, dataclasses by their ``index``.

    Raises:
        ValueError: if the file is of other settings or another kind, or a line is damaged.
    """

    what: ClassVar[str]

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.results: dict[int, Result] = {}
        header = {"format": f"rftf_torchrl.{self.what}s.1", "settings": dict(settings)}
        first = json.dumps(header) + "\n"
        content = self.path.read_bytes() if self.path.exists() else b""
        if first.encode().startswith(content):
            write_text(self.path, first)
            return
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.decode(errors="replace").splitlines() or [""]
        self._check_header(lines[0], header)
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(lines[1:], start=2):
            try:
                result = self.read(checked(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}, line {number}, is no finished {self.what} ({error}): remove the "
                    f"line, and the {self.what} is run again"
                ) from error
            self.results[result.index] = result

    @staticmethod
    @abstractmethod
    def read(data: Mapping[str, Any]) -> Result:
        """The dataclass of what :func:`dataclasses.asdict` wrote; refuses what does not fit."""

    def _check_header(self, line: str, expected: dict[str, Any]) -> None:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != expected["format"]:
            raise ValueError(
                f"{self.path} is no file of finished {self.what}s: move it away or choose another "
                "name"
            )
        then, now = found.get("settings", {}), json.loads(json.dumps(expected["settings"]))
        for name in sorted({*then, *now}):
            if then.get(name) != now.get(name):
                raise ValueError(
                    f"{self.path} holds {self.what}s with {name} = {then.get(name)!r}, and now it "
                    f"is {now.get(name)!r}: move the file away, choose another (in "
                    "rftf evaluate output=...), or keep what it was made with"
                )

    def add(self, result: Result) -> None:
        """Append a finished part."""
        self.results[result.index] = result
        append_text(self.path, json.dumps(with_digest(asdict(result))) + "\n")
