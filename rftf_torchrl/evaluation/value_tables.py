"""A report on a value model as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rftf_torchrl.evaluation.estimate import Measure
from rftf_torchrl.evaluation.report import MISSING, markdown_table, number
from rftf_torchrl.evaluation.scored_episodes import SOURCES
from rftf_torchrl.evaluation.value_report import ValueReport

_PLAYED = {
    "demonstration": "held-out demonstrations",
    "reversed": "the same, reversed",
    "shuffled": "the same, shuffled",
    "wrong_instruction": "the same, wrong instruction",
    "success": "successes",
    "failure": "failures",
}
_ORDER = {
    "pairwise_accuracy": "pairwise accuracy",
    "value_order_correlation": "value-order correlation",
    "kendall_tau": "Kendall's tau",
    "negative_steps": "negative steps",
    "gain": "gain",
    "final_value": "final value",
}
_OUTCOME = {
    "final_auc": "AUC, final value",
    "max_auc": "AUC, highest value",
    "final_margin": "margin, final value",
    "max_margin": "margin, highest value",
}
_OTHER = {
    ("calibration", "error"): "calibration error",
    ("calibration", "deviation"): "mean deviation from progress",
    ("instruction", "accuracy"): "own instruction has the highest value",
    ("instruction", "margin"): "margin of the own instruction",
}

_READING = """\
Pairwise accuracy is the share of two frames of an episode whose later one has the higher value; the
correlations are between value and time. 0.5 and 0 are chance. Negative steps: the share of steps
that lose value. Gain: the last value less the first. AUC: how often a success has a higher value
than a failure of the same task; 0.5 is chance. Margin: the difference of their mean values, or of
the value under the own instruction and the best other one. Calibration error and deviation: how far
values are from the share of the demonstration that is over.

Brackets are {percent} intervals: bootstrap over episodes within each task and source, Wilson's for
the share of episodes whose own instruction has the highest value. Rows named "all tasks" are means
over the tasks that have the number, that share is pooled. An interval without width says that all
resamples agree, not that there is no doubt."""


def value_report_tables(report: ValueReport) -> dict[str, str]:
    """The tables of a report, by heading; see :func:`~rftf_torchrl.run_report`.

    Args:
        report: of :func:`~rftf_torchrl.value_report`.

    Returns:
        Markdown by heading; headings without data have an empty text.
    """
    percent = f"{100 * report.settings['confidence']:g}%"
    played = [source for source in SOURCES if source in report.overall]
    order = [
        [_PLAYED[source], *(_cell(report.overall[source][key]) for key in _ORDER)]
        for source in played
    ]
    return {
        "How to read this": _READING.format(percent=percent),
        "Order, by how the episodes are played": _table(["episodes", *_ORDER.values()], order),
        "Success and failure": _by_task(
            report, {("outcome", key): name for key, name in _OUTCOME.items()}
        ),
        "Calibration and instruction": _by_task(report, _OTHER),
        "Order in held-out demonstrations, by task": _by_task(
            report, {("demonstration", key): name for key, name in _ORDER.items()}
        ),
        "Last state of a success under each task's instruction": _confusion(report),
        "Episodes": _table(
            ["task", *(_PLAYED[source] for source in played)],
            [
                [name, *(counts[source] for source in played)]
                for name, counts in report.settings["episodes"].items()
            ],
        ),
    }


def _by_task(report: ValueReport, columns: Mapping[tuple[str, str], str]) -> str:
    def row(label: str, groups: Mapping[str, Mapping[str, Measure]]) -> list[str]:
        cells = [groups.get(group, {}).get(key) for group, key in columns]
        return [label, *(_cell(cell) for cell in cells)]

    rows = [row(name, groups) for name, groups in report.tasks.items()]
    rows = [cells for cells in rows if set(cells[1:]) != {MISSING}]
    if len(rows) > 1:
        rows.insert(0, row("all tasks", report.overall))
    return _table(["task", *columns.values()], rows)


def _confusion(report: ValueReport) -> str:
    found = report.confusion
    rows = [
        [name, *(_number(value) for value in values)]
        for name, values in zip(found["rows"], found["value"], strict=True)
    ]
    return _table(["success in", *found["tasks"]], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    return markdown_table(header, rows) if rows else ""


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return MISSING
    value = _number(measure.value)
    if math.isnan(measure.low):
        return value
    return f"{value} [{_number(measure.low)}, {_number(measure.high)}]"


def _number(value: float) -> str:
    return number(round(value, 3) + 0.0)
