"""How a chain of tasks went, and the file to which each finished chain is added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rftf_torchrl.digests import checked, with_digest
from rftf_torchrl.files import append_text, write_text

_FORMAT = "rftf_torchrl.chains.1"


@dataclass(frozen=True)
class ChainResult:
    """How one chain went.

    Attributes:
        index: the chain's place in the list that was asked for.
        tasks: CALVIN's names of its tasks.
        steps: control steps of each task that was tried, the failed one included.
        length: how many of its tasks were done in a row.
    """

    index: int
    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    length: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChainResult:
        """Reads what :func:`dataclasses.asdict` wrote.

        Raises:
            ValueError: if the numbers don't fit each other.
            KeyError: if one is missing.
            TypeError: if one has the wrong type.
        """
        result = cls(
            int(data["index"]), tuple(data["tasks"]), tuple(data["steps"]), int(data["length"])
        )
        tried = min(result.length + 1, len(result.tasks))
        if result.index < 0 or not 0 <= result.length <= len(result.tasks):
            raise ValueError(f"chain {result.index} of {len(result.tasks)} tasks: {result.length}")
        if len(result.steps) != tried:
            raise ValueError(f"chain {result.index} tried {tried} tasks, not {len(result.steps)}")
        return result


class ChainFile:
    """A file with one finished chain a line, to which an evaluation that was stopped returns.

    The first line holds the settings, and only the same settings may add to the file. A last line
    that a kill cut short is dropped.

    Args:
        path: the file; it may exist.
        settings: all that decides the results, as plain numbers and strings.

    Attributes:
        results: the chains that are in the file, by index.

    Raises:
        ValueError: if the file is of other settings or another kind, or a line is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "chains.jsonl"
        >>> ChainFile(path, {"seed": 0}).add(ChainResult(7, ("open_drawer",), (51,), 1))
        >>> ChainFile(path, {"seed": 0}).results[7].steps
        (51,)
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.results: dict[int, ChainResult] = {}
        header = {"format": _FORMAT, "settings": dict(settings)}
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
                result = ChainResult.from_dict(checked(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}, line {number}, is no finished chain ({error}): remove the line, "
                    "and the chain is run again"
                ) from error
            self.results[result.index] = result

    def _check_header(self, line: str, expected: dict[str, Any]) -> None:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise ValueError(
                f"{self.path} is no file of finished chains: move it away or choose another name"
            )
        then, now = found.get("settings", {}), json.loads(json.dumps(expected["settings"]))
        for name in sorted({*then, *now}):
            if then.get(name) != now.get(name):
                raise ValueError(
                    f"{self.path} holds chains with {name} = {then.get(name)!r}, and now it is "
                    f"{now.get(name)!r}: choose another file, or evaluate as before"
                )

    def add(self, result: ChainResult) -> None:
        """Append a finished chain."""
        self.results[result.index] = result
        append_text(self.path, json.dumps(with_digest(asdict(result))) + "\n")
