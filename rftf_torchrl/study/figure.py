"""Learning curves of a study, each method beside the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from rftf_torchrl.evaluation import _figures as figures
from rftf_torchrl.study.collection import Cells
from rftf_torchrl.study.curves import Band, common_grid, curve_band


def plot_study_curves(
    cells: Cells,
    task_set: str,
    path: str | Path,
    *,
    baseline: str,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Path:
    """Plot held-out success over environment steps, with bands: a panel a method.

    The baseline is drawn in every panel. Bands are 95% Student intervals of the mean over seeds,
    point by point.

    Args:
        cells: the study.
        task_set: which task set.
        path: the PNG file.
        baseline: the method that is drawn beside the others.
        labels: what to call the methods.
        title: above the plot.

    Returns:
        The path.

    Raises:
        CellError: if the baseline or the task set is not in the study.
    """
    labels = labels or {}
    reference = cells.of(task_set, baseline)
    others = [method for method in cells.methods if method != baseline] or [baseline]
    every = [cell for method in cells.methods for cell in cells.of(task_set, method)]
    grid = common_grid(every)
    names = [labels.get(method, method) for method in others]
    figure, axes = figures.panels(
        names, title=title, x_label="environment steps", y_label="held-out success"
    )
    base = curve_band(reference, grid)
    for ax, method in zip(axes, others, strict=True):
        own = curve_band(cells.of(task_set, method), grid)
        _draw(ax, base, figures.ORANGE, f"{labels.get(baseline, baseline)} (baseline)", dashed=True)
        if method != baseline:
            _draw(ax, own, figures.BLUE, "the panel's method", dashed=False)
        figures.percent_axis(ax, "y")
        figures.steps_axis(ax, 4)
    return figures.save(figure, path)


def _draw(ax: Axes, band: Band, colour: str, label: str, *, dashed: bool) -> None:
    style = (0, (4, 2)) if dashed else "-"
    ax.plot(band.steps, band.mean, color=colour, linestyle=style, linewidth=2, label=label)
    figures.band(ax, band.steps, band.low, band.high, colour, "95% interval over seeds")
