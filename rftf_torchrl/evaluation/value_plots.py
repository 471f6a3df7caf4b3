"""The figures of a report on a value model as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rftf_torchrl.evaluation import _figures as figures
from rftf_torchrl.evaluation.value_report import ValueReport

_LOOKS = {
    "demonstration": (figures.BLUE, "solid", "held-out demonstration"),
    "wrong_instruction": (figures.ORANGE, (0, (1, 1.2)), "the same, wrong instruction"),
    "success": (figures.GREEN, "solid", "successful rollout"),
    "failure": (figures.VERMILLION, (0, (4, 1.5)), "failed rollout"),
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
    names = _panel_names(list(report.curves))
    figure, axes = figures.panels(
        [_label(name) for name in names],
        title=title,
        x_label="share of the episode",
        y_label="value V(s)",
    )
    for ax, name in zip(axes, names, strict=True):
        ax.plot([0, 1], [0, 1], color=figures.GREY, linewidth=1, linestyle=(0, (1, 3)))
        for source, (colour, dashes, label) in _LOOKS.items():
            if source in report.curves[name]:
                curve = report.curves[name][source]
                x = np.linspace(0, 1, len(curve["value"]))
                ax.plot(x, curve["value"], color=colour, linestyle=dashes, linewidth=2, label=label)
                ax.fill_between(
                    x, curve["low"], curve["high"], color=colour, alpha=0.16, linewidth=0
                )
    figures.legend_below(figure)
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
    names = _panel_names(list(report.calibration))
    figure, axes = figures.panels(
        [_label(name) for name in names],
        title=title,
        x_label="mean value in the bin",
        y_label="mean true progress",
    )
    for ax, name in zip(axes, names, strict=True):
        curve = {key: np.array(numbers) for key, numbers in report.calibration[name].items()}
        filled = curve["frames"] > 0
        x, y = curve["value"][filled], curve["progress"][filled]
        bounds = np.stack([y - curve["low"][filled], curve["high"][filled] - y])
        ax.plot([0, 1], [0, 1], color=figures.GREY, linewidth=1, linestyle=(0, (1, 3)))
        ax.errorbar(
            x,
            y,
            yerr=np.clip(np.nan_to_num(bounds), 0, None),
            color=figures.BLUE,
            marker="o",
            markersize=4,
            linewidth=1.8,
            elinewidth=1.2,
            capsize=2.5,
            label="held-out demonstrations, with intervals",
        )
    figures.legend_below(figure)
    return figures.save(figure, path)


def plot_confusion(report: ValueReport, path: str | Path, title: str | None = None) -> Path:
    """Plot the values of the last states of successes under the instruction of each task.

    A value model that listens is high on the diagonal alone. The colours cover at least 0 to 1.

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
        ax.text(
            column,
            row,
            f"{values[row, column]:.2f}",
            ha="center",
            va="center",
            fontsize=9,
            color=ink,
        )
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=9.5)
    ax.set_yticks(range(len(rows)), rows, fontsize=9.5)
    ax.set_xlabel("instruction", fontsize=11.5)
    ax.set_ylabel("success in", fontsize=11.5)
    figure.colorbar(image, ax=ax, label="mean value of the last state", shrink=0.85)
    return figures.save(figure, path)


def _panel_names(names: list[str]) -> list[str]:
    """With a single task its panel would be that of all tasks once more."""
    return names[1:] if len(names) == 2 else names


def _label(name: str) -> str:
    return "all tasks" if name == "overall" else name
