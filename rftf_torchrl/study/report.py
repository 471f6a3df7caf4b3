"""The report of a study: Markdown, CSV and PNG, from the cells alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from rftf_torchrl.evaluation.report import markdown_table, percent, percent_interval, run_report
from rftf_torchrl.files import write_text
from rftf_torchrl.study import tables
from rftf_torchrl.study.collection import Cells
from rftf_torchrl.study.figure import plot_study_curves
from rftf_torchrl.study.summary import overall_success, summarise

_READING = (
    "Success is the share of held-out episodes that end in success, averaged over tasks. Steps are "
    "simulator steps; rollouts that an arm used beside fine-tuning are in them. Means, "
    "interquartile means (IQM) and probabilities: bootstrap over seeds, a run with all of its "
    "tasks as the unit, 95% Student intervals with the bootstrap's standard error. Differences: "
    "95% Student intervals over paired seeds. Not corrected for the number of methods. "
    "`Detectable` is the true difference that such a study finds four times in five. "
    "P(above baseline) is how likely a run of a method ends above one of the baseline; 0.5 says "
    "that neither is better. Levels: when the mean curve, and the median run, first get there."
)


def write_study_report(
    cells: Cells,
    folder: str | Path,
    *,
    baseline: str,
    levels: tuple[float, ...] = (),
    labels: Mapping[str, str] | None = None,
    title: str = "Study",
    resamples: int = 2000,
) -> Path:
    """Write the report of a study; the same cells give the same bytes.

    ``report.md`` with, per task set, success with intervals, paired differences, steps to levels,
    every cell and where it all came from; ``curves_<task set>.png``; ``cells.csv``, ``curves.csv``
    and ``methods.csv``.

    Args:
        cells: the study.
        folder: where it goes; made if missing.
        baseline: the method that the others are compared with.
        levels: levels of success whose steps are asked for; the baseline's final one is added.
        labels: what to call the methods.
        title: the report's title.
        resamples: resamples of the bootstrap.

    Returns:
        The Markdown file.

    Raises:
        CellError: if the baseline is not in the study.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = {method: method for method in cells.methods} | dict(labels or {})
    summaries = {
        task_set: summarise(cells, task_set, baseline=baseline, levels=levels, resamples=resamples)
        for task_set in cells.task_sets
    }
    sections = {"How to read it": _READING}
    if len(cells.task_sets) > 1:
        sections["All task sets"] = _overall(cells, names, resamples)
    for task_set, found in summaries.items():
        picture = f"curves_{task_set}.png"
        plot_study_curves(
            cells, task_set, folder / picture, baseline=baseline, labels=names, title=task_set
        )
        tasks = ", ".join(cells.of(task_set, baseline)[0].tasks)
        sections[f"Task set {task_set}"] = "\n\n".join(
            [
                f"Tasks: {tasks}.",
                tables.success_table(found, names),
                f"![Learning curves of {task_set}]({picture})",
                f"Paired differences to {names[baseline]}, in points:",
                tables.difference_table(found, baseline, names),
                "Environment steps to levels of success:",
                tables.level_table(found, baseline, names),
                "Final success of every cell:",
                tables.cell_table(cells, task_set, names),
            ]
        )
    sections["Where it comes from"] = _origin(cells)
    texts = {
        "cells.csv": tables.cell_csv(cells),
        "curves.csv": tables.curve_csv(cells),
        "methods.csv": tables.method_csv(summaries),
        "report.md": run_report(title, sections),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder / "report.md"


def _overall(cells: Cells, names: Mapping[str, str], resamples: int) -> str:
    rows = []
    for method in cells.methods:
        scores = [cells.scores(task_set, method) for task_set in cells.task_sets]
        row = [names[method]]
        for interval in overall_success(scores, resamples=resamples):
            row += [percent(interval.estimate), percent_interval(interval.low, interval.high)]
        rows.append(row)
    return markdown_table(["method", "mean", "95% interval", "IQM", "95% interval"], rows)


def _origin(cells: Cells) -> str:
    first = next(iter(cells))
    starts = {(cell.task_set, cell.seed): cell.start_seconds for cell in cells}
    wall, cpu = math.fsum(c.seconds for c in cells), math.fsum(c.cpu_seconds for c in cells)
    count = len(list(cells))
    shared = sum(cell.states["shared"] for cell in cells)
    rows = [
        ["commands", "; ".join(f"`{line}`" for line in sorted({c.command for c in cells}))],
        ["commits", ", ".join(sorted({cell.commit or "none" for cell in cells}))],
        ["versions", ", ".join(f"{k} {v}" for k, v in sorted(first.versions.items()))],
        ["seeds", ", ".join(map(str, cells.seeds))],
        ["cells", str(count)],
        ["wall time of the cells", f"{wall / 60:.1f} min, {wall / 60 / count:.2f} min a cell"],
        ["processor time of the cells", f"{cpu / 60:.1f} min, {cpu / 60 / count:.2f} min a cell"],
        ["wall time of what methods share", f"{math.fsum(starts.values()) / 60:.1f} min"],
        [
            "initial states in training and evaluation",
            f"{shared} (of {sum(c.states['training'] for c in cells):,} trained on and "
            f"{sum(c.states['evaluation'] for c in cells):,} evaluated on, over all cells)",
        ],
    ]
    return markdown_table(["", ""], rows, align="ll")
