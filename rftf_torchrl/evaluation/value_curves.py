"""Does the value model see success? Its values at the ends of trajectories."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.evaluation.trajectories import (
    require_entry,
    split_trajectories,
    succeeded,
    value_curve,
)
from rftf_torchrl.functional.metrics import roc_auc
from rftf_torchrl.keys import nested_keys

logger = logging.getLogger(__name__)

_MEASURES = ("final_auc", "max_auc", "final_margin", "max_margin")


def task_name(trajectory: TensorDictBase, task_names: Mapping[int, str] | None) -> str:
    """The name of a trajectory's task, or its number as a string."""
    number = int(require_entry(trajectory, keys.TASK_ID).reshape(-1)[0])
    return str(number) if task_names is None else task_names.get(number, str(number))


@nested_keys
def final_value_auc(
    tensordict: TensorDictBase,
    *,
    task_names: Mapping[int, str] | None = None,
    value_key: NestedKey = keys.TEMPORAL_VALUE,
) -> dict[str, Any]:
    """Measure how well a trajectory's final and highest value tell success from failure.

    Trajectories are only compared within a task, whose values share a scale; the overall numbers
    are means over the tasks that have successes and failures. An area of 0.5 is chance. A margin
    is the mean over successes minus the mean over failures.

    Source: the Mann-Whitney form of the area under the ROC curve; Hanley, McNeil, Radiology 1982.

    Args:
        tensordict: complete trajectories, batch [N], with ``"temporal_value"`` and ``("next",
            "temporal_value")`` float [N, 1], ``("next", "success")``, ``("next", "done")`` bool
            [N, 1], ``"task_id"`` int64 [N, 1] and ``("collector", "traj_ids")`` int64 [N].
        task_names: name by task id; without one the number is the name.
        value_key: the value's key.

    Returns:
        ``"final_auc"``, ``"max_auc"``, ``"final_margin"``, ``"max_margin"``, NaN where no task has
        both outcomes, and ``"tasks"``: the same by task, with ``"successes"``, ``"failures"``.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if a trajectory is not complete, or a final or highest value is not finite.

    Example:
        >>> from tensordict import TensorDict
        >>> value = torch.tensor([[0.9], [0.2], [0.3], [0.1]])
        >>> won = torch.tensor([[True], [False], [True], [False]])
        >>> data = {"temporal_value": value * 0, "task_id": torch.tensor([[0], [0], [1], [1]])}
        >>> data["next"] = {"temporal_value": value, "success": won, "done": won | True}
        >>> data["collector"] = {"traj_ids": torch.arange(4)}
        >>> result = final_value_auc(TensorDict(data, [4]), task_names={0: "reach", 1: "push"})
        >>> result["final_auc"], round(result["tasks"]["reach"]["final_margin"], 2)
        (1.0, 0.7)
    """
    curves: dict[str, list[tuple[bool, Tensor]]] = {}
    for part in split_trajectories(tensordict).values():
        curve = value_curve(part, value_key=value_key)
        curves.setdefault(task_name(part, task_names), []).append((succeeded(part), curve))
    tasks = {name: _separation(found) for name, found in curves.items()}
    overall = {}
    for measure in _MEASURES:
        known = [row[measure] for row in tasks.values() if not math.isnan(row[measure])]
        overall[measure] = fmean(known) if known else math.nan
    return {**overall, "tasks": tasks}


def warn_if_blind(auc: float, threshold: float = 0.6) -> bool:
    """Log a warning if a value model hardly tells successes from failures.

    Args:
        auc: area under the ROC curve, e.g. ``"final_auc"`` of :func:`final_value_auc`; NaN, where
            no task had both outcomes, tells nothing and gives no warning.
        threshold: least area that is good enough.

    Returns:
        Whether it warned.

    Example:
        >>> warn_if_blind(0.9), warn_if_blind(float("nan"))
        (False, False)
    """
    blind = auc < threshold
    if blind:
        logger.warning(
            "the value model tells successes from failures with an area under the ROC curve of "
            "%.3f, below %.2f (0.5 is chance): its dense reward says little about success",
            auc,
            threshold,
        )
    return blind


@nested_keys
def exploitation_watch(
    tensordict: TensorDictBase, *, value_key: NestedKey = keys.TEMPORAL_VALUE
) -> dict[str, float]:
    r"""Measure how much value trajectories gain from start to end, by outcome.

    .. math::
        \mathrm{gain} = V(s_T) - V(s_0)

    Over the iterations of fine-tuning, a gain of failures that rises towards that of successes
    says that the policy learns to please the value model instead of solving the task.

    Args:
        tensordict: as for :func:`final_value_auc`, without the task.
        value_key: the value's key.

    Returns:
        ``"success_gain"``, ``"failure_gain"`` (means, NaN without such a trajectory), their
        difference ``"gain_gap"``, and the counts ``"successes"``, ``"failures"``.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if a trajectory is not complete.

    Example:
        >>> from tensordict import TensorDict
        >>> start, end = torch.tensor([[0.1], [0.1]]), torch.tensor([[0.9], [0.3]])
        >>> won = torch.tensor([[True], [False]])
        >>> data = {"temporal_value": start, "collector": {"traj_ids": torch.arange(2)}}
        >>> data["next"] = {"temporal_value": end, "success": won, "done": won | True}
        >>> result = exploitation_watch(TensorDict(data, [2]))
        >>> {key: round(value, 2) for key, value in result.items()}
        {'success_gain': 0.8, 'failure_gain': 0.2, 'gain_gap': 0.6, 'successes': 1, 'failures': 1}
    """
    gains: dict[bool, list[float]] = {True: [], False: []}
    for part in split_trajectories(tensordict).values():
        curve = value_curve(part, value_key=value_key)
        gains[succeeded(part)].append((curve[-1] - curve[0]).item())
    success, failure = (fmean(gains[won]) if gains[won] else math.nan for won in (True, False))
    return {
        "success_gain": success,
        "failure_gain": failure,
        "gain_gap": success - failure,
        "successes": len(gains[True]),
        "failures": len(gains[False]),
    }


def _separation(found: list[tuple[bool, Tensor]]) -> dict[str, float]:
    won = torch.tensor([success for success, _ in found])
    successes = int(won.sum())
    row = dict.fromkeys(_MEASURES, math.nan)
    if 0 < successes < len(found):
        final = torch.stack([curve[-1] for _, curve in found])
        highest = torch.stack([curve.max() for _, curve in found])
        for name, score in (("final", final), ("max", highest)):
            row[f"{name}_auc"] = roc_auc(score, won).item()
            row[f"{name}_margin"] = (score[won].mean() - score[~won].mean()).item()
    return {**row, "successes": successes, "failures": len(found) - successes}
