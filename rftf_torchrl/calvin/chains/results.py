"""How a chain of tasks went, and the file to which each finished chain is added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rftf_torchrl.evaluation.finished import FinishedFile


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


class ChainFile(FinishedFile[ChainResult]):
    """A file with one finished chain a line, to which an evaluation that was stopped returns.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "chains.jsonl"
        >>> ChainFile(path, {"seed": 0}).add(ChainResult(7, ("open_drawer",), (51,), 1))
        >>> ChainFile(path, {"seed": 0}).results[7].steps
        (51,)
    """

    what = "chain"
    read = staticmethod(ChainResult.from_dict)
