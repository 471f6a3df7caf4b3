"""Statistics of episodes with the bootstrap's draws beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rftf_torchrl.functional.intervals import wilson_interval
from rftf_torchrl.functional.resampling import percentile_interval


@dataclass(frozen=True)
class Measure:
    """A number with its interval.

    Attributes:
        value: the measure, NaN where the data do not tell.
        low: lower end of the interval, NaN where there is none.
        high: upper end.
        count: the episodes that it rests on, or for a mean over tasks the tasks.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Estimate:
    """A statistic [...], and the same in each resample [R, ...].

    Attributes:
        point: the statistic.
        draws: in each resample.
        count: episodes.
        alone: whether it rests on a single episode of each kind, which tells nothing about noise.
        successes: of a proportion of independent episodes, how many; Wilson's interval is for it.
    """

    point: Tensor
    draws: Tensor
    count: int
    alone: bool
    successes: int | None = None

    @classmethod
    def mean(cls, rows: Tensor, counts: Tensor, *, total: bool = False) -> Estimate:
        """Mean (or sum) over episodes of rows [E, ...] with the resamples' counts [R, E]."""
        n = len(rows)
        scale = 1 if total else n
        flat = rows.reshape(n, -1)
        draws = (counts @ flat / scale).reshape(len(counts), *rows.shape[1:])
        return cls(rows.sum(0) / scale, draws, n, bool((counts == 1).all()))

    def split(self, names: list[str]) -> dict[str, Estimate]:
        """One for each entry of the first dimension, by name."""
        return {
            name: Estimate(self.point[i], self.draws[:, i], self.count, self.alone)
            for i, name in enumerate(names)
        }

    def interval(self, confidence: float) -> tuple[Tensor, Tensor]:
        """The bootstrap's interval, NaN for a single episode."""
        if self.alone:
            return self.point * math.nan, self.point * math.nan
        return percentile_interval(self.draws, confidence)

    def lists(self, confidence: float) -> dict[str, list[Any]]:
        """A statistic with many entries and its interval, as JSON holds them."""
        low, high = self.interval(confidence)
        return {"value": self.point.tolist(), "low": low.tolist(), "high": high.tolist()}

    def measure(self, confidence: float, count: int | None = None) -> Measure:
        """A scalar statistic with its interval, and what it rests on if not on the episodes."""
        if self.successes is not None:
            low, high = wilson_interval(self.successes, self.count, confidence)
            return Measure(self.successes / self.count, low, high, self.count)
        low, high = (bound.item() for bound in self.interval(confidence))
        return Measure(self.point.item(), low, high, self.count if count is None else count)


def mean_of(items: Sequence[Estimate]) -> Estimate:
    """The mean over tasks, or the pooled share; no interval where no task has one."""
    total = sum_of(items)
    won = [item.successes for item in items if item.successes is not None]
    return replace(
        total,
        point=torch.stack([item.point for item in items]).mean(0),
        draws=torch.stack([item.draws for item in items]).mean(0),
        successes=sum(won) if len(won) == len(items) else None,
    )


def sum_of(items: Sequence[Estimate]) -> Estimate:
    """The sum over tasks."""
    return Estimate(
        torch.stack([item.point for item in items]).sum(0),
        torch.stack([item.draws for item in items]).sum(0),
        sum(item.count for item in items),
        all(item.alone for item in items),
    )
