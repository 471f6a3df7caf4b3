"""Two evaluations over the same episodes."""

from __future__ import annotations

from typing import Any

import torch

from rftf_torchrl.evaluation.report import interval, markdown_table, number, percent
from rftf_torchrl.evaluation.success import SuccessReport
from rftf_torchrl.functional.paired import paired_difference_interval


def compare_success(
    before: SuccessReport, after: SuccessReport, *, confidence: float = 0.95
) -> dict[str, Any]:
    """Compare success episode by episode: the rate after minus the rate before.

    Both evaluations ran the same episodes, so the interval is one for matched pairs. Episodes that
    crashed in either are left out and counted.

    Source: Newcombe, Statistics in Medicine 1998, 17:2635, method 10; see
    :func:`~rftf_torchrl.paired_difference_interval`.

    Args:
        before: outcomes before.
        after: outcomes after, over the same (task, seed).
        confidence: coverage of the intervals.

    Returns:
        ``"tasks"`` (by name), ``"pooled"`` (over all pairs) and ``"dropped"`` (crashed in either).
        A comparison holds ``"trials"``, the rates ``"before"`` and ``"after"``, ``"difference"``,
        ``"low"``, ``"high"``, and in how many episodes success was ``"gained"`` or ``"lost"``.

    Raises:
        ValueError: if the episodes differ, one occurs twice, or all crashed in either.

    Example:
        >>> from rftf_torchrl import EpisodeOutcome, SuccessReport
        >>> before = [EpisodeOutcome("reach", seed, seed < 2, 5) for seed in range(10)]
        >>> after = [EpisodeOutcome("reach", seed, seed < 8, 5) for seed in range(10)]
        >>> result = compare_success(SuccessReport(tuple(before)), SuccessReport(tuple(after)))
        >>> {key: round(value, 3) for key, value in result["pooled"].items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'trials': 10, 'before': 0.2, 'after': 0.8, 'difference': 0.6, 'low': 0.162, 'high': 0.803,
         'gained': 6, 'lost': 0}
    """
    then, now = _outcomes(before, "before"), _outcomes(after, "after")
    if then.keys() != now.keys():
        task, seed = sorted(then.keys() ^ now.keys())[0]
        where = "before" if (task, seed) in then else "after"
        raise ValueError(
            f"the episode of task {task!r} with seed {seed} is only in the report {where!r}; "
            "expected the same episodes in both, so that they can be paired."
        )
    pairs = [
        (task, was, is_now)
        for (task, seed), was in then.items()
        if was is not None and (is_now := now[task, seed]) is not None
    ]
    if not pairs:
        raise ValueError("every episode crashed before or after; there is nothing to compare.")
    return {
        "tasks": {
            name: _compare([pair for pair in pairs if pair[0] == name], confidence)
            for name in dict.fromkeys(task for task, _, _ in pairs)
        },
        "pooled": _compare(pairs, confidence),
        "dropped": len(then) - len(pairs),
    }


def comparison_table(
    comparison: dict[str, Any], labels: tuple[str, str] = ("before", "after")
) -> str:
    """The comparison as a Markdown table, with differences in percentage points.

    Args:
        comparison: of :func:`compare_success`.
        labels: what to call the two evaluations.

    Returns:
        The table, a row per task and one for all episodes.
    """
    rows = [
        [
            name,
            row["trials"],
            *paired_cells(row),
        ]
        for name, row in (*comparison["tasks"].items(), ("all episodes", comparison["pooled"]))
    ]
    header = ["task", "episodes", *labels, "difference", "95% interval", "gained", "lost"]
    return markdown_table(header, rows)


def _outcomes(report: SuccessReport, name: str) -> dict[tuple[str, int], bool | None]:
    """Success by episode, None where it crashed."""
    ended = [((o.task, o.seed), o.success) for o in report.outcomes]
    outcomes: dict[tuple[str, int], bool | None] = {}
    for key, success in (*ended, *((key, None) for key in report.crashed_episodes)):
        if key in outcomes:
            raise ValueError(
                f"the episode of task {key[0]!r} with seed {key[1]} is twice in the report "
                f"{name!r}; expected each episode once, so that they can be paired."
            )
        outcomes[key] = success
    return outcomes


def _compare(pairs: list[tuple[str, bool, bool]], confidence: float) -> dict[str, float]:
    was, now = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
    return {"trials": len(pairs), **compare_pairs(was, now, confidence)}


def compare_pairs(was: list[bool], now: list[bool], confidence: float) -> dict[str, float]:
    """Rates of matched outcomes before and after, their difference, and who gained or lost."""
    before, after = torch.tensor(was), torch.tensor(now)
    low, high = paired_difference_interval(after, before, confidence)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return {
        "before": sum(was) / len(was),
        "after": sum(now) / len(now),
        "difference": (gained - lost) / len(was),
        "low": low,
        "high": high,
        "gained": gained,
        "lost": lost,
    }


def paired_cells(row: dict[str, Any]) -> list[object]:
    """The cells of a table that tell of :func:`compare_pairs`."""
    return [
        percent(row["before"]),
        percent(row["after"]),
        number(100 * row["difference"], "+.1f"),
        interval(100 * row["low"], 100 * row["high"], "+.1f"),
        row["gained"],
        row["lost"],
    ]
