"""Write a trajectory's outcome to every one of its steps."""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from rftf_torchrl.keys import CRASHED, MASK, SUCCESS, TRAJECTORY, TRAJECTORY_SUCCESS, nested_keys
from rftf_torchrl.nets.entries import NO_COMPACT_OBS, required


@nested_keys
def label_outcomes(
    tensordict: TensorDictBase,
    *,
    incomplete: Literal["raise", "drop"] = "raise",
    success_key: NestedKey = ("next", SUCCESS),
    done_key: NestedKey = ("next", "done"),
    crashed_key: NestedKey = ("next", CRASHED),
    trajectory_key: NestedKey = TRAJECTORY,
    mask_key: NestedKey = MASK,
    out_key: NestedKey = TRAJECTORY_SUCCESS,
) -> TensorDictBase:
    """Write to every step whether its trajectory succeeded: any success at any of its steps.

    Args:
        tensordict: transitions of shape [*B], in any order.
        incomplete: what to do with trajectories without a done, whose outcome is not known yet:
            ``"raise"``, or ``"drop"`` their steps (flat data only).
        success_key: bool [*B, 1], read.
        done_key: bool [*B, 1], read.
        crashed_key: bool [*B, 1], read if there.
        trajectory_key: int64 [*B], the trajectory of each step.
        mask_key: bool [*B], read if there: steps where it is False are padding, in no trajectory.
        out_key: bool [*B, 1], written; False at padding.

    Returns:
        ``tensordict``, or without the dropped steps a new one.

    Raises:
        KeyError: ``success_key``, ``done_key`` or ``trajectory_key`` is missing.
        ValueError: a trajectory is incomplete, or crashed: a crash says nothing about the policy,
            so it must not become a failure. ``drop_crashed`` drops and counts them.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> success = torch.tensor([[False], [True], [False]])
        >>> data = TensorDict({"next": {"success": success, "done": torch.ones(3, 1).bool()}}, [3])
        >>> data["collector", "traj_ids"] = torch.tensor([0, 0, 1])
        >>> label_outcomes(data)["trajectory_success"].squeeze(-1).tolist()
        [True, True, False]
    """
    if incomplete not in ("raise", "drop"):
        raise ValueError(f"incomplete must be 'raise' or 'drop', got {incomplete!r}.")
    shape = tensordict.batch_size
    why = ", so the outcome of a trajectory is not known."
    success = required(tensordict, success_key, f"{why} {NO_COMPACT_OBS}").reshape(shape) != 0
    done = required(tensordict, done_key, why).reshape(shape) != 0
    ids = required(tensordict, trajectory_key, why).reshape(shape)
    real = tensordict.get(mask_key, None)
    padding = torch.zeros_like(done) if real is None else ~real.reshape(shape)
    success, done = success & ~padding, done & ~padding

    crashed = tensordict.get(crashed_key, None)
    if crashed is not None and crashed.any():
        lost = _listed(ids[crashed.reshape(shape) != 0])
        raise ValueError(
            f"Trajectories {lost} crashed: their outcome is not a "
            "failure but unknown. Drop and count them with "
            "rftf_torchrl.drop_crashed."
        )
    complete = torch.isin(ids, ids[done]) | padding
    if not complete.all():
        if incomplete == "raise":
            raise ValueError(
                f"Trajectories {_listed(ids[~complete])} have no step with {done_key!r}, so their "
                "outcome is not known yet. Collect complete trajectories (trajs_per_batch), or "
                "pass incomplete='drop'."
            )
        if tensordict.batch_dims != 1:
            raise ValueError(
                f"incomplete='drop' needs a flat batch [N], got batch size {tuple(shape)}. "
                "Collect with traj_format='cat'."
            )
        tensordict, ids, success = tensordict[complete], ids[complete], success[complete]
        padding = padding[complete]
    won = torch.isin(ids, ids[success]) & ~padding
    return tensordict.set(out_key, won.unsqueeze(-1))


def _listed(ids: torch.Tensor) -> str:
    """At most ten distinct ids, as they read in an error."""
    distinct = ids.unique().tolist()
    return ", ".join(map(str, distinct[:10])) + (", ..." if len(distinct) > 10 else "")
