"""Learning curves over environment steps: bands, means over training, steps to levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from rftf_torchrl.functional.aggregates import steps_to_level
from rftf_torchrl.optional import optional_module
from rftf_torchrl.study.cell import Cell


@dataclass(frozen=True)
class Band:
    """The mean curve of several runs, with pointwise Student intervals over the runs.

    Attributes:
        steps: environment steps, float64 [P].
        mean: mean success over tasks and runs, float64 [P].
        low: lower end, NaN for a single run.
        high: upper end, likewise.
    """

    steps: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class LevelSteps:
    """When runs reach a level of success.

    Attributes:
        level: the level.
        of_mean: steps after which the mean curve of the runs reaches it, infinity if it does not.
        reached: how many runs reach it.
        runs: how many runs there are.
        median: median over the runs, infinity where half of them or more do not reach it.
    """

    level: float
    of_mean: float
    reached: int
    runs: int
    median: float


def common_grid(cells: Sequence[Cell], points: int = 41) -> Tensor:
    """Equally spaced steps from 0 to where the shortest of the runs ends, float64 [points].

    Runs without fine-tuning, which have one point, do not shorten it.
    """
    ends = [cell.env_steps for cell in cells if len(cell.curve) > 1]
    return torch.linspace(0.0, float(min(ends, default=0)), points if ends else 1).double()


def on_grid(cell: Cell, grid: Tensor) -> Tensor:
    """Mean success over tasks at the steps of a grid, straight between points, float64 [P]."""
    steps = [point.env_steps for point in cell.curve]
    success = [sum(point.success) / len(point.success) for point in cell.curve]
    return torch.from_numpy(np.interp(grid.numpy(), steps, success))


def curve_band(cells: Sequence[Cell], grid: Tensor, *, confidence: float = 0.95) -> Band:
    """The mean of several runs' curves and its pointwise interval.

    Args:
        cells: runs of one method.
        grid: environment steps, float64 [P].
        confidence: coverage at each point.

    Returns:
        The band.

    Raises:
        ModuleNotFoundError: if SciPy is missing.
    """
    curves = torch.stack([on_grid(cell, grid) for cell in cells])
    mean, runs = curves.mean(0), len(curves)
    half = torch.full_like(mean, math.nan)
    if runs > 1:
        stats = optional_module("scipy.stats", "study", "a study")
        quantile = float(stats.t.ppf(0.5 + 0.5 * confidence, runs - 1))
        half = quantile * curves.std(0) / math.sqrt(runs)
    return Band(grid, mean, (mean - half).clamp(min=0.0), (mean + half).clamp(max=1.0))


def mean_over_training(cells: Sequence[Cell], grid: Tensor) -> Tensor:
    """Mean success of each run over a grid (the area under its curve), float64 [runs]."""
    curves = torch.stack([on_grid(cell, grid) for cell in cells])
    if len(grid) == 1:
        return curves[:, 0]
    return torch.trapezoid(curves, grid, dim=-1) / (grid[-1] - grid[0])


def level_steps(cells: Sequence[Cell], grid: Tensor, level: float) -> LevelSteps:
    """When the runs of one method reach a level of success.

    A single evaluation above the level counts, so noise makes a single run early; the mean curve
    is less noisy.

    Args:
        cells: runs of one method.
        grid: environment steps at which the mean curve is taken, float64 [P], and then wherever a
            longer run was evaluated; a run that has ended keeps its last success.
        level: success rate in [0, 1].

    Returns:
        The steps.
    """
    each = [
        steps_to_level(
            torch.tensor([point.env_steps for point in cell.curve]),
            torch.tensor([sum(p.success) / len(p.success) for p in cell.curve]).double(),
            level,
        )
        for cell in cells
    ]
    points = {point.env_steps for cell in cells for point in cell.curve}
    grid = torch.cat([grid, grid.new_tensor(sorted(x for x in points if x > grid[-1]))])
    mean = torch.stack([on_grid(cell, grid) for cell in cells]).mean(0)
    reached = [steps for steps in each if math.isfinite(steps)]
    return LevelSteps(
        level, steps_to_level(grid, mean, level), len(reached), len(each), median(each)
    )
