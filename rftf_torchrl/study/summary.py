"""What a study says of its methods: success, differences to the baseline, speed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rftf_torchrl.functional.aggregates import interquartile_mean, probability_of_improvement
from rftf_torchrl.study.collection import Cells
from rftf_torchrl.study.curves import LevelSteps, common_grid, level_steps, mean_over_training
from rftf_torchrl.study.intervals import Difference, Interval, bootstrap_interval, paired_difference


@dataclass(frozen=True)
class MethodSummary:
    """One method on one task set.

    Attributes:
        method: its name.
        mean: mean final success over runs and tasks.
        iqm: interquartile mean of the final success of runs and tasks.
        improvement: probability that a run of it ends above a run of the baseline.
        during: mean success over training, over runs.
        final_difference: final success minus the baseline's, over paired runs.
        during_difference: mean success over training minus the baseline's, likewise.
        levels: when it reaches the levels asked for; the last is the baseline's final success.
        env_steps: mean environment steps of a run.
    """

    method: str
    mean: Interval
    iqm: Interval
    improvement: Interval
    during: float
    final_difference: Difference
    during_difference: Difference
    levels: tuple[LevelSteps, ...]
    env_steps: float


def summarise(
    cells: Cells,
    task_set: str,
    *,
    baseline: str,
    levels: tuple[float, ...] = (),
    resamples: int = 2000,
) -> list[MethodSummary]:
    """Compare every method with a baseline on one task set.

    Args:
        cells: the study.
        task_set: which task set.
        baseline: the method that the others are compared with.
        levels: levels of success whose steps are asked for.
        resamples: resamples of the bootstrap.

    Returns:
        A summary per method, in the order of the study.

    Raises:
        CellError: if the baseline or the task set is not in the study.
    """
    reference = cells.of(task_set, baseline)
    base = cells.scores(task_set, baseline)
    every = [cell for method in cells.methods for cell in cells.of(task_set, method)]
    grid = common_grid(every)
    base_during = mean_over_training(reference, grid)
    asked = (*levels, float(base.mean()))
    found = []
    for method in cells.methods:
        own = cells.of(task_set, method)
        scores = cells.scores(task_set, method)
        during = mean_over_training(own, grid)
        success = overall_success([scores], resamples=resamples)
        found.append(
            MethodSummary(
                method,
                *success,
                bootstrap_interval(
                    [torch.stack([scores, base], -1)],
                    _improvement,
                    resamples=resamples,
                    bounds=(0.0, 1.0),
                ),
                float(during.mean()),
                paired_difference(scores.mean(-1), base.mean(-1), bounds=(-1.0, 1.0)),
                paired_difference(during, base_during, bounds=(-1.0, 1.0)),
                tuple(level_steps(own, grid, level) for level in asked),
                sum(cell.env_steps for cell in own) / len(own),
            )
        )
    return found


def overall_success(scores: list[Tensor], *, resamples: int = 2000) -> tuple[Interval, Interval]:
    """Mean and interquartile mean of runs and tasks over several task sets.

    Args:
        scores: final success by task set, each [runs, tasks].
        resamples: resamples of the bootstrap.

    Returns:
        The mean and the interquartile mean, each with its interval.
    """
    statistics = (
        lambda groups: _pooled(groups).mean(-1),
        lambda groups: interquartile_mean(_pooled(groups)),
    )
    mean, iqm = (
        bootstrap_interval(scores, statistic, resamples=resamples, bounds=(0.0, 1.0))
        for statistic in statistics
    )
    return mean, iqm


def _pooled(groups: list[Tensor]) -> Tensor:
    """All scores of every resample, [R, N]."""
    return torch.cat([group.flatten(1) for group in groups], -1)


def _improvement(groups: list[Tensor]) -> Tensor:
    (pairs,) = groups
    return probability_of_improvement(pairs[..., 0], pairs[..., 1])
