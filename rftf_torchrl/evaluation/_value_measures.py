"""What a report on a value model measures in one task, with the bootstrap's draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from rftf_torchrl.evaluation.estimate import Estimate
from rftf_torchrl.evaluation.scored_episodes import ScoredEpisode, Source
from rftf_torchrl.functional.metrics import kendall_tau, pairwise_accuracy, value_order_correlation
from rftf_torchrl.functional.progress import calibration_sums, negative_step_share

GRID = 21
"""Points of a mean curve over the share of the episode."""
ORDER: dict[str, Callable[[Tensor], Tensor]] = {
    "pairwise_accuracy": pairwise_accuracy,
    "value_order_correlation": value_order_correlation,
    "kendall_tau": kendall_tau,
    "negative_steps": negative_step_share,
    "gain": lambda values: values[-1] - values[0],
    "final_value": lambda values: values[-1],
}


Strata = Mapping[Source, list[ScoredEpisode]]
Counts = Mapping[Source, Tensor]


def order(found: list[ScoredEpisode]) -> Tensor:
    """The measures of :data:`ORDER` of each episode: [E, measures]."""
    rows = [[float(measure(e.values)) for measure in ORDER.values()] for e in found]
    return torch.tensor(rows, dtype=torch.float64)


def curves(found: list[ScoredEpisode]) -> Tensor:
    """The values at equal shares of each episode: [E, GRID]."""
    grid = np.linspace(0.0, 1.0, GRID)
    rows = [np.interp(grid, np.linspace(0.0, 1.0, len(e.values)), e.values) for e in found]
    return torch.from_numpy(np.stack(rows))


def _progress(episode: ScoredEpisode) -> Tensor:
    return torch.linspace(0, 1, len(episode.values), dtype=torch.float64)


def bin_sums(found: list[ScoredEpisode], bins: int) -> Tensor:
    """Sums of value and of progress, and the frames, by bin: [E, 3, bins]."""
    rows = [torch.stack(calibration_sums(e.values, _progress(e), bins)) for e in found]
    return torch.stack(rows)


def calibration(found: list[ScoredEpisode], counts: Tensor, sums: Estimate) -> dict[str, Estimate]:
    """Calibration error and mean deviation of demonstrations with these :func:`bin_sums`."""

    def error(total: Tensor) -> Tensor:
        value, progress, frames = total.unbind(-2)
        return (value - progress).abs().sum(-1) / frames.sum(-1)

    deviation = torch.stack([(e.values - _progress(e)).abs().mean() for e in found])
    return {
        "error": Estimate(error(sums.point), error(sums.draws), sums.count, sums.alone),
        "deviation": Estimate.mean(deviation, counts),
    }


def outcome(strata: Strata, counts: Counts) -> dict[str, Estimate]:
    """Areas and margins of successes against failures; both are needed."""
    sides = strata["success"], strata["failure"]
    weights = counts["success"], counts["failure"]
    sizes = len(sides[0]), len(sides[1])
    found = {}
    scores: dict[str, Callable[[Tensor], Tensor]]
    scores = {"final": lambda v: v[-1], "max": lambda v: v.max()}
    for name, score in scores.items():
        won, lost = (torch.stack([score(e.values) for e in side]) for side in sides)
        wins = 0.5 * (torch.sign(won.unsqueeze(1) - lost) + 1.0)
        area = ((weights[0] @ wins) * weights[1]).sum(-1) / math.prod(sizes)
        margin = weights[0] @ won / sizes[0] - weights[1] @ lost / sizes[1]
        points = {"auc": wins.mean(), "margin": won.mean() - lost.mean()}
        for measure, draws in (("auc", area), ("margin", margin)):
            found[f"{name}_{measure}"] = Estimate(
                points[measure], draws, sum(sizes), min(sizes) < 2
            )
    return found


def final_values(strata: Strata, counts: Counts, columns: list[str]) -> tuple[Tensor, Tensor]:
    """Values of the last states by instruction, [E, columns], and their counts, [R, E]."""
    rows, drawn = [], []
    for source in counts:
        kept = [bool(e.final_values) for e in strata[source]]
        rows += [[e.final_values[c] for c in columns] for e in strata[source] if e.final_values]
        drawn.append(counts[source][:, torch.tensor(kept)])
    return torch.tensor(rows, dtype=torch.float64), torch.cat(drawn, dim=1)


def instruction(finals: Tensor, own: int, counts: Tensor) -> dict[str, Estimate]:
    """Whether and by how much the own instruction, column ``own``, has the highest value."""
    others = torch.cat([finals[:, :own], finals[:, own + 1 :]], dim=1)
    margin = finals[:, own] - others.max(1).values
    best = margin > 0
    accuracy = Estimate.mean(best.double(), counts)
    share = Estimate(accuracy.point, accuracy.draws, len(best), False, int(best.sum()))
    return {"accuracy": share, "margin": Estimate.mean(margin, counts)}
