"""The tables of a study, in Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from rftf_torchrl.evaluation.report import (
    MISSING,
    interval,
    markdown_table,
    number,
    percent,
    percent_interval,
)
from rftf_torchrl.study.collection import Cells
from rftf_torchrl.study.curves import LevelSteps
from rftf_torchrl.study.intervals import Difference
from rftf_torchrl.study.summary import MethodSummary

Labels = Mapping[str, str]


def success_table(found: Sequence[MethodSummary], labels: Labels) -> str:
    """Final success and success over training, a row a method."""
    header = [
        "method",
        "mean",
        "95% interval",
        "IQM",
        "95% interval",
        "mean over training",
        "P(above baseline)",
        "95% interval",
        "environment steps",
    ]
    rows = [
        [
            labels[row.method],
            percent(row.mean.estimate),
            percent_interval(row.mean.low, row.mean.high),
            percent(row.iqm.estimate),
            percent_interval(row.iqm.low, row.iqm.high),
            percent(row.during),
            f"{row.improvement.estimate:.2f}",
            interval(row.improvement.low, row.improvement.high, ".2f"),
            f"{row.env_steps:,.0f}",
        ]
        for row in found
    ]
    return markdown_table(header, rows)


def difference_table(found: Sequence[MethodSummary], baseline: str, labels: Labels) -> str:
    """Paired differences to the baseline in percentage points, a row a method."""
    header = ["method", "pairs"]
    for name in ("final success", "mean over training"):
        header += [name, "95% interval", "detectable at 80% power"]
    rows = [
        [
            labels[row.method],
            row.final_difference.runs,
            *_points(row.final_difference),
            *_points(row.during_difference),
        ]
        for row in found
        if row.method != baseline
    ]
    return markdown_table(header, rows)


def level_table(found: Sequence[MethodSummary], baseline: str, labels: Labels) -> str:
    """Steps to levels of success, a row a method and level."""
    reference = {row.method: row.levels for row in found}[baseline]
    header = [
        "method",
        "level",
        "mean curve reaches it after",
        "share of the baseline's steps",
        "runs that reach it",
        "median run",
    ]
    rows = []
    for row in found:
        for level, other in zip(row.levels, reference, strict=True):
            last = level is row.levels[-1]
            rows.append(
                [
                    labels[row.method],
                    percent(level.level) + (" (baseline's end)" if last else ""),
                    _steps(level.of_mean),
                    _share(level, other),
                    f"{level.reached} / {level.runs}",
                    _steps(level.median),
                ]
            )
    return markdown_table(header, rows)


def cell_table(cells: Cells, task_set: str, labels: Labels) -> str:
    """Final success of every cell, averaged over its tasks: methods x seeds."""
    header = ["method", *(f"seed {seed}" for seed in cells.seeds)]
    rows = [
        [labels[method], *map(percent, cells.scores(task_set, method).mean(-1).tolist())]
        for method in cells.methods
    ]
    return markdown_table(header, rows)


def cell_csv(cells: Cells) -> str:
    """A row for every cell and task: successes, trials, crashes."""
    rows = []
    for cell in cells:
        for task, outcomes in cell.outcomes.items():
            ended = [won for won in outcomes if won is not None]
            counts = [sum(ended), len(ended), len(outcomes) - len(ended)]
            steps = [cell.env_steps, cell.charged_steps]
            rows.append([cell.task_set, cell.method, cell.seed, task, *counts, *steps])
    header = "task_set method seed task successes trials crashed env_steps charged_steps"
    return _csv(header.split(), rows)


def curve_csv(cells: Cells) -> str:
    """A row for every cell, point of its curve and task."""
    rows = [
        [cell.task_set, cell.method, cell.seed, point.env_steps, task, f"{rate:.6f}"]
        for cell in cells
        for point in cell.curve
        for task, rate in zip(cell.tasks, point.success, strict=True)
    ]
    return _csv(["task_set", "method", "seed", "env_steps", "task", "success"], rows)


def method_csv(summaries: Mapping[str, Sequence[MethodSummary]]) -> str:
    """A row for every task set and method, the numbers of the Markdown tables in full."""
    names = ("mean", "iqm", "improvement", "final_difference", "during_difference")
    rows = []
    for task_set, found in summaries.items():
        for row in found:
            cells = [task_set, row.method, f"{row.env_steps:.1f}", f"{row.during:.6f}"]
            for name in names:
                found = getattr(row, name)
                cells += [f"{x:.6f}" for x in (found.estimate, found.low, found.high)]
            rows.append(cells)
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    return _csv(["task_set", "method", "env_steps", "during", *ends], rows)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _points(difference: Difference) -> list[str]:
    return [
        number(100 * difference.estimate, "+.1f"),
        interval(100 * difference.low, 100 * difference.high, "+.1f"),
        number(100 * difference.detectable, ".1f"),
    ]


def _steps(steps: float) -> str:
    return f"{steps:,.0f}" if math.isfinite(steps) else "not reached"


def _share(level: LevelSteps, baseline: LevelSteps) -> str:
    known = math.isfinite(level.of_mean) and math.isfinite(baseline.of_mean)
    return f"{level.of_mean / baseline.of_mean:.2f}" if known and baseline.of_mean else MISSING
