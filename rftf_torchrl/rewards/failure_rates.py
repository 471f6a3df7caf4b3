"""Write to every step how often its task failed in the batch."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from rftf_torchrl.keys import (
    FAILURE_RATE,
    MASK,
    TASK_ID,
    TRAJECTORY,
    TRAJECTORY_SUCCESS,
    nested_keys,
)
from rftf_torchrl.nets.entries import required


@nested_keys
def label_failure_rates(
    tensordict: TensorDictBase,
    *,
    outcome_key: NestedKey = TRAJECTORY_SUCCESS,
    task_key: NestedKey = TASK_ID,
    trajectory_key: NestedKey = TRAJECTORY,
    mask_key: NestedKey = MASK,
    out_key: NestedKey = FAILURE_RATE,
) -> TensorDictBase:
    """Write to every step the share of the batch's trajectories of its task that failed.

    A trajectory counts once, however long it is. As the weight of a dense reward
    (``DenseReward(share_key="failure_rate")``) it pays most where a task hardly ever succeeds, and
    nothing where it always does.

    Args:
        tensordict: steps of shape [*B], in any order, with outcomes (:func:`label_outcomes`).
        outcome_key: bool [*B, 1], read.
        task_key: int64 [*B, 1], read.
        trajectory_key: int64 [*B], read.
        mask_key: bool [*B], read if there: steps where it is False are padding, in no trajectory.
        out_key: float32 [*B, 1], in [0, 1], written; 0 at padding.

    Returns:
        ``tensordict``.

    Raises:
        KeyError: if an entry is missing.

    Example:
        >>> from tensordict import TensorDict
        >>> won = torch.tensor([[False], [False], [True], [False]])
        >>> data = TensorDict({"trajectory_success": won, "task_id": torch.zeros(4, 1).long()}, [4])
        >>> data["collector", "traj_ids"] = torch.tensor([0, 0, 1, 2])
        >>> label_failure_rates(data)["failure_rate"].squeeze(-1)
        tensor([0.6667, 0.6667, 0.6667, 0.6667])
    """
    why = ", so how often a task fails is not known."
    outcome, task, trajectory = (
        required(tensordict, key, why).reshape(-1)
        for key in (outcome_key, task_key, trajectory_key)
    )
    mask = tensordict.get(mask_key, None)
    real = torch.ones_like(outcome, dtype=torch.bool) if mask is None else mask.reshape(-1)
    rate = torch.zeros(len(outcome), device=outcome.device)
    outcome, task, trajectory = outcome[real], task[real], trajectory[real]
    trajectories, where = trajectory.unique(return_inverse=True)
    tasks, of_step = task.unique(return_inverse=True)
    failed = torch.zeros(len(trajectories), device=outcome.device)
    failed[where] = (~outcome.bool()).float()
    of_trajectory = torch.zeros(len(trajectories), dtype=of_step.dtype, device=of_step.device)
    of_trajectory[where] = of_step
    count = torch.bincount(of_trajectory, minlength=len(tasks))
    rates = torch.bincount(of_trajectory, failed, minlength=len(tasks)) / count
    rate[real] = rates[of_step]
    return tensordict.set(out_key, rate.reshape(*tensordict.batch_size, 1))
