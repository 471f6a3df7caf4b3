"""The sections of the quick start's report: tables, images and videos, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rftf_torchrl import (
    RunConfig,
    SuccessReport,
    language_table,
    markdown_table,
    plot_learning_curve,
    plot_success_bars,
    read_metrics,
)
from rftf_torchrl.evaluation.report import image, number, percent, percent_interval

PAIRED = """\
Both play the same episodes or chains. `difference` is the second minus the first, for rates in
percentage points, with a 95% interval for pairs: where it excludes 0, the two differ by more than
chance. `gained` and `lost` count what only the second and only the first of them solves."""

SUCCESS = """\
The share of episodes that end in success, from initial states that training never draws, with
{actions} actions. Intervals are Wilson's. Episodes whose simulator crashed do not count."""

CURVE = """\
Success of the training episodes, from new states and with sampled actions. The dashed line is the
cloned policy on the held-out states of the first table, with {actions} actions, so the curves need
not start there."""

SEPARATION = """\
`ROC-AUC`: how often a success ends with a higher value than a failure of the same task; 1.00 is
always, 0.50 is chance. `margin`: the mean final value of the successes minus that of the failures.
Both are means over the tasks that have successes and failures. If failures end as high as
successes, the value model is blind to failure, and its reward teaches little. The cloned policy is
judged by the value model before fine-tuning, the others by the one that pays in the end."""

LANGUAGE = """\
The same episodes with the instruction of the other task of the scene. `change`: how far that moves
the first actions. `spread`: how far the first actions of two episodes are apart. `ratio`: change by
spread. Near 0 the policy ignores the instruction; at 1 the instruction counts as much as the
initial state; above 10 it only says that the spread is small. A policy that follows the instruction
fails with the swapped one, because success is still that of the scene's task."""

STEPS = """\
Steps of the simulator. Those of RFTF include the rollouts of the cloned policy that its value model
was trained on, where there are any."""


def kind_of_actions(config: RunConfig) -> str:
    """How the policies that are evaluated act."""
    return "mean" if config.evaluation.deterministic else "sampled"


def success_section(reports: Mapping[str, SuccessReport], actions: str) -> str:
    """A row a task and one for all: rate and 95% Wilson interval of every policy."""
    header = ["task"]
    for label in reports:
        header += [label, "95% interval"]
    rows = []
    for name in [*next(iter(reports.values())).tasks, "all"]:
        row = [name]
        for report in reports.values():
            rate = report.pooled if name == "all" else report.tasks[name]
            row += [percent(rate.rate), percent_interval(*rate.interval)]
        rows.append(row)
    about = SUCCESS.format(actions=actions)
    return section(about, markdown_table(header, rows), image("success.png"))


def separation_section(separation: Mapping[str, Mapping[str, Any]]) -> str:
    """How well the final value tells success from failure, per policy, and the curves."""
    rows = [
        [label, number(found["final_auc"], ".2f"), number(found["final_margin"], "+.2f")]
        for label, found in separation.items()
    ]
    header = ["held-out episodes of", "ROC-AUC of the final value", "margin"]
    images = (image(value_picture(label)) for label in separation)
    return section(SEPARATION, markdown_table(header, rows), *images)


def language_section(language: dict[str, Any] | None) -> str:
    """What the partner's instruction does; empty without a pair of tasks in one scene."""
    return section(LANGUAGE, language_table(language)) if language else ""


def section(*parts: str) -> str:
    return "\n\n".join(parts)


def value_picture(label: str) -> str:
    """Name of the image with the values of a policy's held-out episodes."""
    return f"value_over_time_{label.replace(' ', '_')}.png"


def draw_curves(runs: Mapping[str, RunConfig], before: SuccessReport | None) -> str:
    """The learning curves, with the cloned policy's success where it is known."""
    folder = Path(runs["RFTF"].output)
    curves = {
        label: read_metrics(folder / run.name / "metrics.csv", ended=True)
        for label, run in runs.items()
    }
    baseline = None
    if before is not None:
        tasks = {f"success/{task}": rate.rate for task, rate in before.tasks.items()}
        baseline = {"success": before.mean_rate, **tasks}
    path = plot_learning_curve(
        curves["RFTF"],
        folder / "learning_curve.png",
        sparse=curves.get("sparse"),
        baseline=baseline,
        labels=("RFTF", "sparse PPO"),
        window=8,
        title="success while training: fresh training states, sampled actions",
    )
    return section(CURVE.format(actions=kind_of_actions(runs["RFTF"])), image(path.name))


def draw_success(reports: Mapping[str, SuccessReport], folder: Path, actions: str) -> None:
    """Bars of success before and after."""
    plot_success_bars(
        reports["cloned"],
        reports["RFTF"],
        folder / "success.png",
        labels=("cloned", "RFTF"),
        title=f"success on held-out states, {actions} actions",
    )
