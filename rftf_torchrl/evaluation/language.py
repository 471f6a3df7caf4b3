"""Does the policy follow the instruction? The same scenes with the right and with the wrong one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.envs.collector import EpisodeCollector
from rftf_torchrl.envs.episodes import Episode, EpisodeResult
from rftf_torchrl.evaluation.comparison import compare_success
from rftf_torchrl.evaluation.episodes import Sentences, swapped_instructions
from rftf_torchrl.evaluation.report import markdown_table, number, percent, percent_interval
from rftf_torchrl.evaluation.success import success_report
from rftf_torchrl.evaluation.trajectories import require_entry, split_trajectories
from rftf_torchrl.keys import nested_keys

_LARGEST_RATIO = 10


@nested_keys
def instruction_sensitivity(
    collector: EpisodeCollector,
    episodes: Sequence[Episode],
    pairs: Iterable[tuple[str, str]],
    *,
    instruction_of: Sentences,
    seed: int = 0,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    chunk_key: NestedKey = keys.CHUNK,
) -> dict[str, Any]:
    r"""Run episodes with their own and with their partner's instruction, and compare.

    With the deterministic first chunks :math:`a_i` and :math:`a'_i` of episode i of a task under
    the own and the swapped instruction, and means over all H x A entries,

    .. math::
        \mathrm{change} = \operatorname{mean}_i |a_i - a'_i|, \qquad
        \mathrm{spread} = \operatorname{mean}_{i \ne j} |a_i - a_j|, \qquad
        \mathrm{ratio} = \mathrm{change} / \mathrm{spread}.

    A ratio near 0 means that the policy ignores the instruction. At 1 another instruction changes
    the chunk as much as another initial state does. Far above 1 it only says that the spread is
    small: the initial states differ little, or the policy does not look at them. A policy that
    follows the instruction fails under the swapped one, because success is still that of the
    scene's task.

    Args:
        collector: runs episodes, see :class:`~rftf_torchrl.EpisodeCollector`.
        episodes: what to run; those of tasks without a partner are left out.
        pairs: pairs of tasks that share a scene, each task in one pair at most.
        instruction_of: the instruction of a task.
        seed: seed of the policy's noise, of which a deterministic policy has none.
        on_episode: called with each episode as it finishes; there are two per episode.
        chunk_key: the policy's chunk, float [N, H, A].

    Returns:
        ``"tasks"``: by name ``"change"``, ``"spread"``, ``"ratio"`` (NaN without a spread), and
        ``"own"``, ``"swapped"``: rates with intervals. ``"ratio"``: mean over the tasks
        that have one. ``"success"``:
        :func:`compare_success` with the own instruction before and the swapped one after.

    Raises:
        ValueError: if no episode has a partner, or an episode starts in another state the second
            time, so that the chunks cannot be compared.
        KeyError: if an entry is missing.
    """
    swapped = swapped_instructions(episodes, pairs, instruction_of=instruction_of)
    tasks = {episode.task for episode in swapped}
    own = [episode for episode in episodes if episode.task in tasks]
    runs = [
        collector.collect(part, deterministic=True, seed=seed, on_episode=on_episode)
        for part in (own, swapped)
    ]
    own_report, swapped_report = success_report(runs[0], own), success_report(runs[1], swapped)
    firsts = [{number: part[0] for number, part in split_trajectories(run).items()} for run in runs]
    rows: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(episode.task for episode in own):
        common = [
            i
            for i, episode in enumerate(own)
            if episode.task == task and i in firsts[0] and i in firsts[1]
        ]
        for i in common:
            _check_same_start(own[i], firsts[0][i], firsts[1][i])
        chunks, others = (
            [require_entry(first[i], chunk_key).double() for i in common] for first in firsts
        )
        rows[task] = {
            **_chunk_change(chunks, others),
            "own": own_report.tasks[task].to_dict(),
            "swapped": swapped_report.tasks[task].to_dict(),
        }
    known = [row["ratio"] for row in rows.values() if not math.isnan(row["ratio"])]
    return {
        "tasks": rows,
        "ratio": sum(known) / len(known) if known else math.nan,
        "success": compare_success(own_report, swapped_report),
    }


def language_table(report: dict[str, Any]) -> str:
    """The result of :func:`instruction_sensitivity` as a Markdown table.

    A ratio above 10 is not written out, as it says nothing but that the spread is small.
    """
    rows = []
    for task, row in report["tasks"].items():
        ratio = row["ratio"]
        shown = f"above {_LARGEST_RATIO}" if ratio > _LARGEST_RATIO else number(ratio, ".2f")
        cells = [task, number(row["change"]), number(row["spread"]), shown]
        for side in ("own", "swapped"):
            rate = row[side]
            cells += [percent(rate["rate"]), percent_interval(rate["low"], rate["high"])]
        rows.append(cells)
    header = ["task", "change", "spread", "ratio"]
    header += ["own instruction", "95% interval", "swapped instruction", "95% interval"]
    return markdown_table(header, rows)


def _check_same_start(episode: Episode, first: TensorDictBase, again: TensorDictBase) -> None:
    """The test of the instruction alone needs the same initial state."""
    state = first.get(keys.STATE, None)
    if state is not None and not torch.equal(state, again.get(keys.STATE, None)):
        raise ValueError(
            f"the episode of task {episode.task!r} with seed {episode.seed} starts in another "
            f"{keys.STATE!r} with the swapped instruction; expected an environment whose initial "
            "state depends on the seed alone."
        )


def _chunk_change(own: list[Tensor], swapped: list[Tensor]) -> dict[str, float]:
    n = len(own)
    if n == 0:
        return dict.fromkeys(("change", "spread", "ratio"), math.nan)
    chunks, others = torch.stack(own), torch.stack(swapped)
    change = (chunks - others).abs().mean().item()
    if n == 1:
        return {"change": change, "spread": math.nan, "ratio": math.nan}
    pairwise = (chunks.unsqueeze(0) - chunks.unsqueeze(1)).abs().flatten(2).mean(-1)
    spread = (pairwise.sum() / (n * (n - 1))).item()
    return {"change": change, "spread": spread, "ratio": change / spread if spread else math.nan}
