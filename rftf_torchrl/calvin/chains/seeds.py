"""Compare two ways of training over several seeds, each evaluated on the same chains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from rftf_torchrl.calvin.chains.comparison import chain_pairs, compare_chains
from rftf_torchrl.calvin.chains.report import ChainReport
from rftf_torchrl.functional.bounded_mean import bounded_mean_interval
from rftf_torchrl.study.intervals import paired_difference


def compare_seeds(
    before: Sequence[ChainReport], after: Sequence[ChainReport], confidence: float = 0.95
) -> dict[str, Any]:
    """Compare average lengths of policies pair by pair, over seeds and chains.

    Two intervals answer two questions. Over chains: do *these* policies get farther than those,
    :func:`~rftf_torchrl.bounded_mean_interval` of the chains' differences, each averaged over the
    seeds. Over seeds: would training *again* get farther, Student's interval of the seeds' mean
    differences, wide with few seeds, cut where no difference can be.

    Args:
        before: an evaluation for each seed.
        after: another one for each seed, in the same order, over the same chains.
        confidence: coverage.

    Returns:
        ``seeds`` and ``chains``; ``before``, ``after`` and ``difference`` (average lengths);
        ``by_seed``: the seeds' differences; ``over_chains`` and ``over_seeds``: ``(low, high)``,
        NaN for one seed.

    Raises:
        ValueError: if the numbers of seeds differ or are zero, a chain is missing somewhere or is
            another one, the protocols differ, or :func:`compare_chains` finds a pair that is none.
        ModuleNotFoundError: if SciPy is missing.

    Example:
        >>> from rftf_torchrl import ChainResult
        >>> def report(*lengths):
        ...     return ChainReport(tuple(
        ...         ChainResult(i, ("open_drawer", "close_drawer"), (9, 9)[: n + 1], n)
        ...         for i, n in enumerate(lengths)))
        >>> found = compare_seeds([report(0, 1), report(1, 1)], [report(1, 2), report(1, 2)])
        >>> found["difference"], found["by_seed"]
        (0.75, [1.0, 0.5])
    """
    if len(before) != len(after) or not before:
        raise ValueError(
            f"{len(before)} evaluations before and {len(after)} after; expected one of each a seed"
        )
    pairs = list(zip(before, after, strict=True))
    compared = [compare_chains(old, new, confidence) for old, new in pairs]
    indices = {result.index for result in before[0].results}
    for number, (old, new) in enumerate(pairs):
        chain_pairs(before[0], old, ("in the first evaluation", f"in evaluation {number}"))
        for report in (old, new):
            if {result.index for result in report.results} != indices:
                raise ValueError(
                    f"evaluation {number} lacks chains that the first one has, or has more; "
                    "expected the same chains for every seed"
                )
    gained = dict.fromkeys(sorted(indices), 0.0)
    for old, new in pairs:
        for sign, report in ((-1, old), (1, new)):
            for result in report.results:
                gained[result.index] += sign * result.length / len(pairs)
    by_seed = [found["difference"] for found in compared]
    longest = before[0].longest
    over_seeds = (math.nan, math.nan)
    if len(pairs) > 1:
        student = paired_difference(
            torch.tensor([found["after"] for found in compared], dtype=torch.float64),
            torch.tensor([found["before"] for found in compared], dtype=torch.float64),
            confidence=confidence,
            bounds=(-longest, longest),
        )
        over_seeds = (student.low, student.high)
    return {
        "seeds": len(pairs),
        "chains": len(indices),
        "before": fmean(found["before"] for found in compared),
        "after": fmean(found["after"] for found in compared),
        "difference": fmean(by_seed),
        "by_seed": by_seed,
        "over_chains": bounded_mean_interval(list(gained.values()), -longest, longest, confidence),
        "over_seeds": over_seeds,
    }
