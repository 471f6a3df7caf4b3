"""Learning curves, values over time and success rates as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from rftf_torchrl import keys
from rftf_torchrl.evaluation import _figures as figures
from rftf_torchrl.evaluation.success import SuccessReport
from rftf_torchrl.evaluation.trajectories import split_trajectories, succeeded, value_curve
from rftf_torchrl.evaluation.value_curves import task_name
from rftf_torchrl.keys import nested_keys

Rows = Sequence[Mapping[str, Any]]


def plot_learning_curve(
    rows: Rows,
    path: str | Path,
    *,
    sparse: Rows | None = None,
    baseline: Mapping[str, float] | None = None,
    labels: tuple[str, str] = ("dense reward", "sparse reward"),
    x_key: str = "env_steps",
    success_key: str = "success",
    window: int = 1,
    title: str | None = None,
) -> Path:
    """Plot success over training, over all tasks and for each task.

    Args:
        rows: metrics by step, numbers or strings as in a CSV file. A row holds ``x_key`` and,
            where the policy was evaluated, ``success_key`` and ``success_key + "/" + task``, all
            in [0, 1]. With ``"_low"`` and ``"_high"`` appended, the ends of intervals to shade.
        path: the PNG file.
        sparse: rows of a second run to compare with.
        baseline: success of behaviour cloning under the same keys, drawn as dashed lines.
        labels: names of the two runs.
        x_key: the horizontal axis, ``"env_steps"`` or ``"iteration"``.
        success_key: the overall success rate.
        window: rows over which to average: above 1 the line is the mean of a row and of the
            ``window - 1`` before it, and the rows themselves are faint points.
        title: above the plot.

    Returns:
        The path.

    Raises:
        ValueError: if no row of a run holds ``success_key``, or two runs have one label.
        KeyError: if a row with success does not hold ``x_key``.
    """
    runs = {labels[0]: rows} if sparse is None else {labels[0]: rows, labels[1]: sparse}
    if sparse is not None and len(runs) == 1:
        raise ValueError(f"both runs are called {labels[0]!r}: give labels that differ.")
    prefix = f"{success_key}/"
    columns = dict.fromkeys(
        name
        for run in runs.values()
        for row in run
        for name in row
        if name.startswith(prefix) and not name.endswith(("_low", "_high"))
    )
    names = [success_key, *(columns if len(columns) > 1 else ())]
    panel_titles = ["all tasks", *(name[len(prefix) :] for name in names[1:])]
    figure, axes = figures.panels(
        panel_titles,
        title=title,
        x_label={"env_steps": "environment steps"}.get(x_key, x_key),
        y_label="success rate",
    )
    for ax, name in zip(axes, names, strict=True):
        for (label, run), colour, mark in zip(
            runs.items(), (figures.BLUE, figures.ORANGE), "os", strict=False
        ):
            x, y = _series(run, x_key, name)
            if not x and name == success_key:
                raise ValueError(
                    f"no row of the run {label!r} holds {success_key!r}; the columns are "
                    f"{sorted({column for row in run for column in row})}. Pass success_key."
                )
            if window > 1:
                figures.smoothed_curve(
                    ax, x, y, window=window, colour=colour, label=label, mark=mark
                )
            else:
                ax.plot(x, y, color=colour, marker=mark, markersize=4, linewidth=2, label=label)
            x_low, low = _series(run, x_key, f"{name}_low")
            x_high, high = _series(run, x_key, f"{name}_high")
            if x_low and x_low == x_high:
                figures.band(ax, x_low, low, high, colour, "interval")
        if baseline is not None and name in baseline:
            ax.axhline(
                float(baseline[name]),
                color=figures.GREY,
                linestyle=(0, (5, 3)),
                linewidth=1.6,
                label="behaviour cloning",
            )
        figures.percent_axis(ax, "y")
        figures.steps_axis(ax, 5)
    return figures.save(figure, path)


@nested_keys
def plot_value_over_time(
    trajectories: TensorDictBase,
    path: str | Path,
    title: str | None = None,
    *,
    task_names: Mapping[int, str] | None = None,
    value_key: NestedKey = keys.TEMPORAL_VALUE,
) -> Path:
    """Plot the value along each trajectory, successes green and failures red, by task.

    Time is normalised (0 = start, 1 = end); thick lines are means over the trajectories.

    Args:
        trajectories: complete trajectories, batch [N], as for :func:`final_value_auc`.
        path: the PNG file.
        title: above the plot.
        task_names: name by task id; without one the number is the name.
        value_key: the value's key.

    Returns:
        The path.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if a trajectory is not complete.
    """
    found: dict[str, dict[bool, list[np.ndarray]]] = {}
    for part in split_trajectories(trajectories).values():
        curves = found.setdefault(task_name(part, task_names), {True: [], False: []})
        curve = value_curve(part, value_key=value_key)
        curves[succeeded(part)].append(curve.detach().cpu().double().numpy())
    counts = [
        f"{name}\n{_count(curves[True], 'success', 'es')}, {_count(curves[False], 'failure', 's')}"
        for name, curves in found.items()
    ]
    figure, axes = figures.panels(
        counts, title=title, x_label="time, from start to end", y_label="value V(s)"
    )
    looks = {
        False: (figures.VERMILLION, (0, (4, 1.5)), "failure", "failures"),
        True: (figures.GREEN, "solid", "success", "successes"),
    }
    for ax, curves in zip(axes, found.values(), strict=True):
        for won, (colour, dashes, one, many) in looks.items():
            if not curves[won]:
                continue
            faint = max(0.12, min(0.6, 4 / len(curves[won])))
            look: dict[str, Any] = {"color": colour, "linestyle": dashes}
            for values in curves[won]:
                x = np.linspace(0.0, 1.0, len(values))
                ax.plot(x, values, **look, linewidth=1, alpha=faint, label=f"one {one}")
                ax.plot(x[-1], values[-1], ".", color=colour, markersize=4, alpha=faint)
            x, values = _mean_curve(curves[won])
            ax.plot(x, values, **look, linewidth=2.6, label=f"mean of the {many}")
    return figures.save(figure, path)


def plot_success_bars(
    before: SuccessReport,
    after: SuccessReport,
    path: str | Path,
    *,
    labels: tuple[str, str] = ("before", "after"),
    title: str | None = None,
) -> Path:
    """Plot the success rates of two evaluations with Wilson's 95% intervals.

    Args:
        before: the first evaluation.
        after: the second, of the same tasks.
        path: the PNG file.
        labels: names of the two.
        title: above the plot.

    Returns:
        The path.

    Raises:
        ValueError: if the tasks differ.
    """
    names = list(before.tasks)
    if set(names) != set(after.tasks):
        raise ValueError(
            f"the reports are about the tasks {sorted(names)} and {sorted(after.tasks)}; expected "
            "the same tasks in both."
        )
    figure = figures.new_figure(8.0, 0.62 * (len(names) + 1) + 1.6, title)
    ax = figure.subplots()
    figures.style(ax, grid="x")
    centres = np.arange(len(names) + 1, dtype=float)
    centres[-1] += 0.35
    for report, label, colour, offset in zip(
        (before, after), labels, (figures.ORANGE, figures.BLUE), (-0.19, 0.19), strict=True
    ):
        rates = [*(report.tasks[name] for name in names), report.pooled]
        rate = np.array([item.rate for item in rates])
        bounds = np.array([item.interval for item in rates])
        ax.barh(centres + offset, rate, height=0.34, color=colour, label=label)
        ax.errorbar(
            rate,
            centres + offset,
            xerr=np.clip(np.stack([rate - bounds[:, 0], bounds[:, 1] - rate]), 0, None),
            fmt="none",
            ecolor="#222222",
            elinewidth=1.2,
            capsize=3,
        )
    rows = {name: (before.tasks[name], after.tasks[name]) for name in names}
    rows["all episodes"] = before.pooled, after.pooled
    trials = {
        name: ", ".join(dict.fromkeys(str(rate.trials) for rate in pair))
        for name, pair in rows.items()
    }
    ax.set_yticks(centres, [f"{name} (n = {n})" for name, n in trials.items()])
    ax.set_ylabel("task, episodes", fontsize=12)
    ax.axhline(centres[-1] - 0.68, color="#BBBBBB", linewidth=1)
    ax.set_ylim(centres[-1] + 0.55, -0.55)
    ax.tick_params(axis="y", labelsize=11, length=0)
    figures.percent_axis(ax, "x")
    ax.set_xlim(0.0, 1.03)
    ax.set_xlabel("success rate, with 95% intervals", fontsize=12)
    return figures.save(figure, path)


def _series(rows: Rows, x_key: str, key: str) -> tuple[list[float], list[float]]:
    x, y = [], []
    for row in rows:
        cell = row.get(key)
        if cell is None or cell == "" or math.isnan(float(cell)):
            continue
        if x_key not in row:
            raise KeyError(f"a row with {key!r} has no {x_key!r}; it holds {sorted(row)}.")
        x.append(float(row[x_key]))
        y.append(float(cell))
    return x, y


def _count(items: Sequence[object], word: str, plural: str) -> str:
    return f"{len(items)} {word}{plural * (len(items) != 1)}"


def _mean_curve(curves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    grid = np.linspace(0.0, 1.0, 101)
    resampled = [np.interp(grid, np.linspace(0.0, 1.0, len(curve)), curve) for curve in curves]
    return grid, np.mean(resampled, axis=0)
