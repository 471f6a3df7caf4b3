"""Compare two evaluations over the same chains."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from rftf_torchrl.calvin.chains.report import ChainReport
from rftf_torchrl.calvin.chains.results import ChainResult
from rftf_torchrl.evaluation.comparison import compare_pairs, paired_cells
from rftf_torchrl.evaluation.report import interval, markdown_table
from rftf_torchrl.functional.bounded_mean import bounded_mean_interval

_PROTOCOL = ("steps_per_subtask", "scene", "sentences")


def compare_chains(
    before: ChainReport, after: ChainReport, confidence: float = 0.95
) -> dict[str, Any]:
    """Compare two evaluations chain by chain.

    The interval of the difference of average lengths is :func:`~rftf_torchrl.bounded_mean_interval`
    of the chains' differences; those of success in a row are Newcombe's for pairs.

    Args:
        before: an evaluation.
        after: another one, e.g. of the fine-tuned policy, over the same chains.
        confidence: coverage.

    Returns:
        ``chains``, ``before`` and ``after`` (average lengths), ``difference``, ``low`` and
        ``high``; ``longer`` and ``shorter``: chains that got farther after or before; ``in_a_row``:
        for k = 1, 2, ... ``before``, ``after``, ``difference``, ``low``, ``high``, ``gained`` and
        ``lost``; ``dropped``: chains that only one of the two has.

    Raises:
        ValueError: if no chain is in both, a chain has other tasks, or the protocols differ.
            Instructions count only if both get any: a controller does not.

    Example:
        >>> from rftf_torchrl import ChainResult
        >>> def report(*lengths):
        ...     return ChainReport(tuple(
        ...         ChainResult(i, ("open_drawer", "close_drawer"), (9, 9)[: n + 1], n)
        ...         for i, n in enumerate(lengths)))
        >>> compared = compare_chains(report(0, 1, 2), report(1, 2, 1))
        >>> compared["longer"], compared["shorter"], round(compared["difference"], 3)
        (2, 1, 0.333)
    """
    pairs = chain_pairs(before, after)
    if not pairs:
        raise ValueError("no chain is in both evaluations; expected the same chains")
    gains = [new.length - old.length for old, new in pairs]
    low, high = bounded_mean_interval(gains, -before.longest, before.longest, confidence)
    return {
        "chains": len(pairs),
        "before": fmean(old.length for old, _ in pairs),
        "after": fmean(new.length for _, new in pairs),
        "difference": fmean(gains),
        "low": low,
        "high": high,
        "longer": sum(gain > 0 for gain in gains),
        "shorter": sum(gain < 0 for gain in gains),
        "in_a_row": [
            _in_a_row(pairs, k, confidence)
            for k in range(1, max(len(old.tasks) for old, _ in pairs) + 1)
        ],
        "dropped": len(before.results) + len(after.results) - 2 * len(pairs),
    }


def chain_pairs(
    before: ChainReport, after: ChainReport, when: tuple[str, str] = ("before", "after")
) -> list[tuple[ChainResult, ChainResult]]:
    """The chains that two evaluations share, in order.

    Args:
        before: an evaluation.
        after: another one.
        when: what errors call the two.

    Raises:
        ValueError: if a chain has other tasks, or the protocols differ.
    """
    first, second = when
    for name in _PROTOCOL:
        then, now = before.settings.get(name), after.settings.get(name)
        deaf = name == "sentences" and None in (then, now)
        if then != now and not deaf:
            raise ValueError(
                f"{name} is {then!r} {first} and {now!r} {second}; expected the same protocol"
            )
    was = {result.index: result for result in before.results}
    is_now = {result.index: result for result in after.results}
    pairs = [(was[k], is_now[k]) for k in sorted(was.keys() & is_now.keys())]
    for old, new in pairs:
        if old.tasks != new.tasks:
            raise ValueError(
                f"chain {old.index} is {', '.join(old.tasks)} {first} and {', '.join(new.tasks)} "
                f"{second}; expected the same chains"
            )
    return pairs


def _in_a_row(
    pairs: list[tuple[ChainResult, ChainResult]], k: int, confidence: float
) -> dict[str, float]:
    pairs = [pair for pair in pairs if len(pair[0].tasks) >= k]
    was = [old.length >= k for old, _ in pairs]
    now = [new.length >= k for _, new in pairs]
    return compare_pairs(was, now, confidence)


def chain_comparison_table(
    comparison: dict[str, Any], labels: tuple[str, str] = ("before", "after")
) -> str:
    """The comparison as a Markdown table: success in a row in percent, and the average length.

    Args:
        comparison: of :func:`compare_chains`.
        labels: what to call the two evaluations.
    """
    rows = [
        [f"{k} in a row", *paired_cells(row)]
        for k, row in enumerate(comparison["in_a_row"], start=1)
    ]
    rows.append(
        [
            "average length",
            f"{comparison['before']:.3f}",
            f"{comparison['after']:.3f}",
            f"{comparison['difference']:+.3f}",
            interval(comparison["low"], comparison["high"], "+.3f"),
            comparison["longer"],
            comparison["shorter"],
        ]
    )
    header = ["tasks done", *labels, "difference", "95% interval", "gained", "lost"]
    return markdown_table(header, rows)
