"""The look that all plots share, without pyplot and its global state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from rftf_torchrl.files import whole_file

# Okabe, Ito 2008: distinguishable with every kind of colour vision
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY = "#5A5A5A"
_DPI = 150
_COLUMNS = 4


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """An empty figure, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=14, fontweight="bold")
    return figure


def panels(
    titles: list[str], *, title: str | None, x_label: str, y_label: str
) -> tuple[Figure, list[Axes]]:
    """A grid of panels with common axes, one for each title."""
    columns = min(_COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = new_figure(max(3.1 * columns, 5.6) + 0.4, 2.5 * rows + 1.3, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    axes = list(grid.flat)
    for ax in axes[len(titles) :]:
        ax.remove()
    axes = axes[: len(titles)]
    for number, (ax, name) in enumerate(zip(axes, titles, strict=True)):
        style(ax)
        ax.set_title("\n".join(fill(line, 30) for line in name.splitlines()), fontsize=11.5)
        if number + columns >= len(titles):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel(x_label, fontsize=11.5)
        if number % columns == 0:
            ax.set_ylabel(y_label, fontsize=11.5)
    return figure, axes


def style(ax: Axes, *, grid: Literal["both", "x", "y"] = "both") -> None:
    """A light grid and no box."""
    ax.set_axisbelow(True)
    ax.grid(True, axis=grid, color="#E3E3E3", linewidth=0.8)
    ax.tick_params(labelsize=10, color="#BBBBBB")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#BBBBBB")


def percent_axis(ax: Axes, which: Literal["x", "y"]) -> None:
    """An axis of rates from 0% to 100%."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ticks([0.0, 0.25, 0.5, 0.75, 1.0])
    (ax.set_xlim if which == "x" else ax.set_ylim)(-0.03, 1.03)


def steps_axis(ax: Axes, ticks: int) -> None:
    """A horizontal axis of environment steps: 50k, 2M."""
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 2.5, 5, 10]))


def smoothed_curve(
    ax: Axes,
    x: Sequence[float],
    y: Sequence[float],
    *,
    window: int,
    colour: str,
    label: str,
    mark: str = "o",
) -> None:
    """Points, and as a line the mean of each with the ``window - 1`` before it."""
    ax.plot(x, y, mark, color=colour, markersize=3, alpha=0.3, label=f"{label}, single iterations")
    mean = [fmean(y[max(0, end - window) : end]) for end in range(1, len(y) + 1)]
    ax.plot(x, mean, color=colour, linewidth=2.2, label=f"{label}, mean of the last {window}")


def band(ax: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str, label: str) -> None:
    """The interval around a curve, where there is one; grey in the legend, for all colours."""
    if (np.asarray(high) > np.asarray(low)).any():
        ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.fill_between([], [], color=GREY, alpha=0.25, linewidth=0, label=label)


def diagonal(ax: Axes, label: str) -> None:
    """Where both axes are equal."""
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 3)), label=label)


def _legend_below(figure: Figure) -> None:
    """One legend for all panels, outside of the data."""
    entries: dict[str, Artist] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        widest = 0.6 + 0.085 * max(map(len, entries))
        columns = max(1, int(figure.get_figwidth() / widest))
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=min(len(entries), columns),
            frameon=False,
            fontsize=11,
        )


def save(figure: Figure, path: str | Path) -> Path:
    """Adds the legend and writes the figure as PNG, whole or not at all."""
    _legend_below(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
    return Path(path)
