"""What the benchmark reports of chains: success in a row, average length, and each task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from rftf_torchrl.calvin.chains.results import ChainResult
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.evaluation.report import (
    interval,
    markdown_table,
    number,
    percent,
    percent_interval,
)
from rftf_torchrl.functional.bounded_mean import bounded_mean_interval
from rftf_torchrl.functional.intervals import wilson_interval

_RATE_HEADER = ["successes", "rate", "95% interval"]


@dataclass(frozen=True)
class ChainReport:
    """The chains of an evaluation; all rates follow from them.

    Attributes:
        results: the chains that were finished, by rising index.
        crashed: indices of the chains whose simulator died twice; they count nowhere.
        protocol: whether the benchmark's protocol was kept to, and if not where it wasn't.
        settings: all that decided the results.
        versions: of the libraries, and the commits of those that ran from clones.
    """

    name: ClassVar[str] = "chains"
    results: tuple[ChainResult, ...]
    crashed: tuple[int, ...] = ()
    protocol: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def average_length(self) -> float:
        """Mean number of tasks in a row, NaN without a chain."""
        return fmean(r.length for r in self.results) if self.results else math.nan

    @property
    def average_length_interval(self) -> tuple[float, float]:
        """The 95% interval of the average length, over chains."""
        return bounded_mean_interval([r.length for r in self.results], 0, self.longest)

    @property
    def longest(self) -> int:
        """Tasks of the longest chain."""
        return max((len(r.tasks) for r in self.results), default=0)

    @property
    def in_a_row(self) -> list[dict[str, float]]:
        """For k = 1, 2, ...: how many chains had their first k tasks done."""
        return [
            _rate([r.length >= k for r in self.results if len(r.tasks) >= k])
            for k in range(1, self.longest + 1)
        ]

    @property
    def tasks(self) -> dict[str, dict[str, float]]:
        """Successes of each task out of the times that it was tried, by rising name."""
        tried: dict[str, list[bool]] = {}
        for result in self.results:
            for place in range(len(result.steps)):
                tried.setdefault(result.tasks[place], []).append(place < result.length)
        return {task: _rate(tried[task]) for task in sorted(tried)}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and lists."""
        low, high = self.average_length_interval
        return {
            "protocol": self.protocol,
            "average_length": _number(self.average_length),
            "low": _number(low),
            "high": _number(high),
            "in_a_row": self.in_a_row,
            "tasks": self.tasks,
            "chains": [asdict(result) for result in self.results],
            "crashed": list(self.crashed),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChainReport:
        """Reads what :meth:`to_dict` wrote.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if a chain's numbers don't fit each other.
        """
        return cls(
            results=tuple(ChainResult.from_dict(chain) for chain in data["chains"]),
            crashed=tuple(data["crashed"]),
            protocol=data["protocol"],
            settings=data["settings"],
            versions=data["versions"],
        )

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_record(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> ChainReport:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no such report; the message names it.
        """
        try:
            return cls.from_dict(read_record(path))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no report on chains: {error!r}") from error

    def markdown(self) -> str:
        """The protocol, the average length, and tables by number in a row and by task."""
        low, high = self.average_length_interval
        head = [
            f"{self.protocol}.",
            f"Average length {number(self.average_length)} (95% interval {interval(low, high)}) "
            f"over {len(self.results)} chains: the mean number of tasks that were done in a row, "
            "from a chain's first. Below, how many chains got that far, and how often each task "
            "was done out of the times that it was tried.",
        ]
        if self.crashed:
            head.append(
                f"{len(self.crashed)} chains crashed twice and are not counted: "
                f"{', '.join(map(str, self.crashed))}."
            )
        in_a_row = {f"{k} in a row": rate for k, rate in enumerate(self.in_a_row, start=1)}
        details = [
            f"- {name}: {'none' if value is None else value}"
            for name, value in {**self.settings, **self.versions}.items()
        ]
        return "\n\n".join(
            [*head, _table("tasks done", in_a_row), _table("task", self.tasks), "\n".join(details)]
        )


def _rate(outcomes: Sequence[bool]) -> dict[str, float]:
    successes, trials = sum(outcomes), len(outcomes)
    low, high = wilson_interval(successes, trials)
    return {
        "successes": successes,
        "trials": trials,
        "rate": successes / trials,
        "low": low,
        "high": high,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _table(name: str, rates: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [
            label,
            f"{rate['successes']} / {rate['trials']}",
            percent(rate["rate"]),
            percent_interval(rate["low"], rate["high"]),
        ]
        for label, rate in rates.items()
    ]
    return markdown_table([name, *_RATE_HEADER], rows)
