"""How good a value model is, before anyone trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rftf_torchrl.evaluation import _value_measures as measures
from rftf_torchrl.evaluation.estimate import Estimate, Measure, mean_of, sum_of
from rftf_torchrl.evaluation.scored_episodes import SOURCES, ScoredEpisode
from rftf_torchrl.functional.resampling import bootstrap_counts

Group = dict[str, Measure]


@dataclass(frozen=True)
class ValueReport:
    """What :func:`value_report` found.

    Attributes:
        overall: measures by group and name, means over the tasks.
        tasks: the same by task.
        confusion: ``"value"``, ``"low"``, ``"high"`` (lists [row][column]: mean value of the last
            state of the row's successes under the column's instruction), ``"rows"`` and
            ``"tasks"`` (the names of the two), ``"count"`` (successes by row).
        calibration: by task, and for all frames as ``"overall"``: ``"value"``, ``"progress"``,
            ``"low"``, ``"high"`` (of the progress) and ``"frames"`` by bin.
        curves: by task and as ``"overall"``, by source: mean ``"value"``, ``"low"``, ``"high"`` at
            equal shares of the episode from 0 to 1.
        settings: of the report.
    """

    overall: dict[str, Group]
    tasks: dict[str, dict[str, Group]]
    confusion: dict[str, Any]
    calibration: dict[str, dict[str, list[Any]]]
    curves: dict[str, dict[str, dict[str, list[float]]]]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything as mappings, lists and numbers, for a JSON file."""
        return asdict(self)


def value_report(
    episodes: Sequence[ScoredEpisode],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    bins: int = 10,
    seed: int = 0,
) -> ValueReport:
    r"""Measure what a value model knows, with intervals, by task.

    Groups of measures:

    - one for each source of episodes (``"demonstration"``, ``"reversed"``, ``"shuffled"``,
      ``"wrong_instruction"``, ``"success"``, ``"failure"``), means over its episodes:
      ``"pairwise_accuracy"``, ``"value_order_correlation"``, ``"kendall_tau"``,
      ``"negative_steps"`` (share of steps that lose value), ``"gain"`` (last value minus first),
      ``"final_value"``;
    - ``"calibration"`` of demonstrations, whose true progress at frame t of n is taken to be
      :math:`t / (n - 1)`: ``"error"``, see
      :func:`~rftf_torchrl.calibration_error`, and ``"deviation"``, the mean of
      :math:`|V_t - p_t|`;
    - ``"outcome"``, successful against failed rollouts of the same task: ``"final_auc"``,
      ``"max_auc"`` (areas under the ROC curve of the final and of the highest value),
      ``"final_margin"``, ``"max_margin"`` (differences of the means);
    - ``"instruction"``, the last states of demonstrations and of successful rollouts under the
      instruction of every task: ``"accuracy"``, the share whose own instruction alone has the
      highest value, and ``"margin"``, own minus best other value.

    Overall numbers are means over the tasks that have one; ``"instruction"`` ``"accuracy"`` is
    pooled over the episodes. Where the data do not tell (no failures, one task) a measure is NaN.
    Values that are equal have no order: a constant value has pairwise accuracy and areas of 0.5,
    correlations of 0 and no negative steps, and no instruction wins a tie.

    Intervals are percentile bootstraps over episodes, drawn within each task and source, all
    measures from the same draws; for ``"accuracy"`` it is Wilson's. A task's measure that rests on
    a single episode of a source has no interval; in an overall number it counts as if it were
    exact. Where all resamples agree, as for an area of exactly 1, the interval has no width. The
    calibration error, a sum of absolute values, is biased upwards in small data, and so is its
    interval.

    Source: VOC, GVL (Ma et al. 2024, arXiv 2411.04549); the areas, Hanley, McNeil, Radiology 1982;
    the intervals, Efron, Tibshirani 1993, section 13.3, and Wilson, JASA 1927.

    Args:
        episodes: of :func:`score_demonstrations` and :func:`score_rollouts`, or your own.
        confidence: coverage of the intervals.
        resamples: of the bootstrap.
        bins: of the calibration curve.
        seed: of the bootstrap; the same episodes and seed give the same report.

    Returns:
        The report.

    Raises:
        ValueError: if there is no episode, or the instructions under which final states were
            valued are not the same for all.

    Example:
        >>> values = torch.linspace(0, 1, 6)
        >>> episodes = [ScoredEpisode("demonstration", "reach", values + 0.1 * i) for i in range(3)]
        >>> report = value_report(episodes)
        >>> report.overall["demonstration"]["pairwise_accuracy"].value
        1.0
        >>> round(report.overall["calibration"]["deviation"].value, 6)
        0.1
    """
    if not episodes:
        raise ValueError("there is no episode to report on: score demonstrations or rollouts first")
    generator = torch.Generator().manual_seed(seed)
    names = list(dict.fromkeys(episode.task for episode in episodes))
    columns = _columns(episodes)
    tasks: dict[str, dict[str, dict[str, Estimate]]] = {}
    sums: dict[str, Estimate] = {}
    finals: dict[str, Estimate] = {}
    curves: dict[str, dict[str, Estimate]] = {}
    for name in names:
        strata = {
            source: [e for e in episodes if e.task == name and e.source == source]
            for source in SOURCES
        }
        counts = {
            source: bootstrap_counts(len(found), resamples, generator)
            for source, found in strata.items()
            if found
        }
        tasks[name], curves[name] = {}, {}
        for source, drawn in counts.items():
            ordered = Estimate.mean(measures.order(strata[source]), drawn)
            tasks[name][source] = ordered.split(list(measures.ORDER))
            curves[name][source] = Estimate.mean(measures.curves(strata[source]), drawn)
        if "demonstration" in counts:
            shown, drawn = strata["demonstration"], counts["demonstration"]
            sums[name] = Estimate.mean(measures.bin_sums(shown, bins), drawn, total=True)
            tasks[name]["calibration"] = measures.calibration(shown, drawn, sums[name])
        if {"success", "failure"} <= counts.keys():
            tasks[name]["outcome"] = measures.outcome(strata, counts)
        ends, drawn = measures.final_values(strata, counts, columns)
        if len(ends) and len(columns) > 1:
            finals[name] = Estimate.mean(ends, drawn)
            if name in columns:
                found = measures.instruction(ends, columns.index(name), drawn)
                tasks[name]["instruction"] = found
    return ValueReport(
        overall=_overall(tasks, confidence),
        tasks={
            name: {
                group: {key: item.measure(confidence) for key, item in found.items()}
                for group, found in groups.items()
            }
            for name, groups in tasks.items()
        },
        confusion=_confusion(columns, finals, confidence),
        calibration=_calibration_curves(sums, confidence),
        curves=_mean_curves(curves, confidence),
        settings={
            "confidence": confidence,
            "resamples": resamples,
            "bins": bins,
            "seed": seed,
            "episodes": {
                name: {s: sum(e.task == name and e.source == s for e in episodes) for s in SOURCES}
                for name in names
            },
        },
    )


def _columns(episodes: Sequence[ScoredEpisode]) -> list[str]:
    valued = [episode for episode in episodes if episode.final_values]
    columns = list(valued[0].final_values) if valued else []
    for episode in valued:
        if list(episode.final_values) != columns:
            raise ValueError(
                f"an episode of task {episode.task!r} has final values under the instructions of "
                f"{list(episode.final_values)}, the first episode under those of {columns}; "
                "expected the same tasks in the same order."
            )
    return columns


def _overall(
    tasks: dict[str, dict[str, dict[str, Estimate]]], confidence: float
) -> dict[str, Group]:
    groups = dict.fromkeys(group for found in tasks.values() for group in found)
    overall: dict[str, Group] = {}
    for group in groups:
        rows = [found[group] for found in tasks.values() if group in found]
        overall[group] = {}
        for key in rows[0]:
            mean = mean_of([row[key] for row in rows])
            overall[group][key] = mean.measure(confidence, len(rows))
    return overall


def _confusion(
    columns: list[str], finals: dict[str, Estimate], confidence: float
) -> dict[str, Any]:
    found = {name: finals[name].lists(confidence) for name in columns if name in finals}
    return {
        "rows": list(found),
        "tasks": columns,
        **{key: [row[key] for row in found.values()] for key in ("value", "low", "high")},
        "count": [finals[name].count for name in found],
    }


def _calibration_curves(
    sums: dict[str, Estimate], confidence: float
) -> dict[str, dict[str, list[Any]]]:
    if not sums:
        return {}
    found = {}
    for name, item in {"overall": sum_of(list(sums.values())), **sums}.items():
        value, progress, frames = item.point
        ratio = Estimate(progress / frames, item.draws[:, 1] / item.draws[:, 2], 0, item.alone)
        shares = ratio.lists(confidence)
        found[name] = {
            "value": (value / frames).tolist(),
            "progress": shares["value"],
            "low": shares["low"],
            "high": shares["high"],
            "frames": frames.long().tolist(),
        }
    return found


def _mean_curves(
    curves: dict[str, dict[str, Estimate]], confidence: float
) -> dict[str, dict[str, dict[str, list[float]]]]:
    sources = [s for s in SOURCES if any(s in found for found in curves.values())]
    overall: dict[str, Estimate] = {
        source: mean_of([found[source] for found in curves.values() if source in found])
        for source in sources
    }
    return {
        name: {source: item.lists(confidence) for source, item in found.items()}
        for name, found in {"overall": overall, **curves}.items()
    }
