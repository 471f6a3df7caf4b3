"""The figures of a report on a value model as PNG files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rftf_torchrl.evaluation import _figures as figures
from rftf_torchrl.evaluation.value_report import ValueReport

_LOOKS = {
    "demonstration": (figures.BLUE, "solid", "held-out demonstration"),
    "wrong_instruction": (figures.ORANGE, (0, (1, 1.2)), "the same, wrong instruction"),
    "success": (figures.GREEN, "solid", "success"),
    "failure": (figures.VERMILLION, (0, (4, 1.5)), "failure"),
}


def plot_value_over_progress(
    report: ValueReport, path: str | Path, title: str | None = None
) -> Path:
    """Plot the mean value over the share of the episode, with intervals, by task.

    Args:
        report: of :func:`~rftf_torchrl.value_report`.
        path: the PNG file.
        title: above the plot.

    Returns:
        The path.
    """
    labels = "share of the episode", "value V(s)", "value = share"
    figure, axes = _panels(report.curves, title, *labels)
    for name, ax in axes.items():
        for source, (colour, dashes, label) in _LOOKS.items():
            if source in report.curves[name]:
                curve = report.curves[name][source]
                x = np.linspace(0, 1, len(curve["value"]))
                ax.plot(x, curve["value"], color=colour, linestyle=dashes, linewidth=2, label=label)
                figures.band(ax, x, curve["low"], curve["high"], colour, _interval(report))
    return figures.save(figure, path)


def plot_calibration(report: ValueReport, path: str | Path, title: str | None = None) -> Path:
    """Plot the mean true progress of held-out frames with about the same value, by task.

    On the diagonal, a value of 0.7 says that 70% of the demonstration is over.

    Args:
        report: of :func:`~rftf_torchrl.value_report`.
        path: the PNG file.
        title: above the plot.

    Returns:
        The path.

    Raises:
        ValueError: if the report has no demonstrations.
    """
    if not report.calibration:
        raise ValueError("the report has no demonstrations, whose progress is known.")
    labels = "mean value in the bin", "mean true progress", "value = progress"
    figure, axes = _panels(report.calibration, title, *labels)
    for name, ax in axes.items():
        curve = {key: np.array(numbers) for key, numbers in report.calibration[name].items()}
        filled = curve["frames"] > 0
        x, y = curve["value"][filled], curve["progress"][filled]
        bounds = np.stack([y - curve["low"][filled], curve["high"][filled] - y])
        ax.errorbar(
            x,
            y,
            yerr=np.clip(bounds, 0, None),  # no bar where a resample has no frame in the bin
            color=figures.BLUE,
            marker="o",
            markersize=4,
            linewidth=1.8,
            elinewidth=1.2,
            capsize=2.5,
            label=f"held-out demonstrations, {_interval(report)}",
        )
    return figures.save(figure, path)


def plot_confusion(report: ValueReport, path: str | Path, title: str | None = None) -> Path:
    """Plot the values of the last states of successes under the instruction of each task.

    A value model that reads the instruction is high on the diagonal alone. The colours cover at
    least 0 to 1.

    Args:
        report: of :func:`~rftf_torchrl.value_report`.
        path: the PNG file.
        title: above the plot.

    Returns:
        The path.

    Raises:
        ValueError: if the report has no success that was valued under several instructions.
    """
    rows, columns = report.confusion["rows"], report.confusion["tasks"]
    if not rows:
        raise ValueError(
            "the report has no success that was valued under the instructions of several tasks."
        )
    values = np.array(report.confusion["value"])
    edge = 0.6
    figure = figures.new_figure(edge * len(columns) + 4.2, edge * len(rows) + 3.0, title)
    ax = figure.subplots()
    low, high = min(0.0, values.min()), max(1.0, values.max())
    image = ax.imshow(values, cmap="cividis", aspect="equal", vmin=low, vmax=high)
    for row, column in np.ndindex(*values.shape):
        ink = "white" if values[row, column] <= (low + high) / 2 else "black"
        text = f"{values[row, column]:.2f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=9, color=ink)
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=9.5)
    ax.set_yticks(range(len(rows)), rows, fontsize=9.5)
    ax.set_xlabel("instruction", fontsize=11.5)
    ax.set_ylabel("success in", fontsize=11.5)
    figure.colorbar(image, ax=ax, label="mean value of the last state", shrink=0.85)
    return figures.save(figure, path)


def _interval(report: ValueReport) -> str:
    return f"{100 * report.settings['confidence']:g}% interval"


def plot_episode_values(
    episodes: Mapping[str, Tensor],
    path: str | Path,
    title: str | None = None,
    *,
    flagged: Collection[str] = (),
) -> Path:
    """Plot the value over the frames of each episode, a small panel each.

    Args:
        episodes: values, float [T], by what stands above the panel.
        path: the PNG file.
        title: above the plot.
        flagged: panels that are drawn in another colour.

    Returns:
        The path.
    """
    labels = {"x_label": "frame", "y_label": "value V(s)"}
    figure, axes = figures.panels(list(episodes), title=title, **labels)
    for ax, (name, values) in zip(axes, episodes.items(), strict=True):
        bad = name in flagged
        colour = figures.VERMILLION if bad else figures.BLUE
        ax.plot(values, color=colour, linewidth=1.8, label="flagged" if bad else "not flagged")
    return figures.save(figure, path)


def _panels(
    found: Mapping[str, Any], title: str | None, x_label: str, y_label: str, diagonal: str
) -> tuple[Figure, dict[str, Axes]]:
    """A panel with a diagonal for all tasks and for each one; just one where there is one task."""
    names = list(found)[1:] if len(found) == 2 else list(found)
    shown = ["all tasks" if name == "overall" else name for name in names]
    figure, axes = figures.panels(shown, title=title, x_label=x_label, y_label=y_label)
    for ax in axes:
        figures.diagonal(ax, diagonal)
    return figure, dict(zip(names, axes, strict=True))
