"""Take a flat batch of complete trajectories apart."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys


def split_trajectories(tensordict: TensorDictBase) -> dict[int, TensorDictBase]:
    """Cut a flat batch into its trajectories.

    Args:
        tensordict: complete trajectories one after another in time order, batch [N], with
            ``("collector", "traj_ids")`` int64 [N] and ``("next", "done")`` bool [N, 1].

    Returns:
        The trajectories [T] by their id, in the order of the batch.

    Raises:
        KeyError: if one of the two entries is missing.
        ValueError: if the batch is not flat, or a trajectory is in two pieces, has no end or
            crashed, which is not a failure.

    Example:
        >>> from tensordict import TensorDict
        >>> done = torch.tensor([[False], [True], [True]])
        >>> data = TensorDict({"next": {"done": done}}, [3])
        >>> data["collector", "traj_ids"] = torch.tensor([4, 4, 2])
        >>> {name: len(part) for name, part in split_trajectories(data).items()}
        {4: 2, 2: 1}
    """
    if tensordict.batch_dims != 1:
        raise ValueError(
            f"the trajectories have batch size {list(tensordict.batch_size)}; expected a flat "
            "batch [N] with one trajectory after another."
        )
    ids = require_entry(tensordict, keys.TRAJECTORY).reshape(-1)
    done = require_entry(tensordict, ("next", "done")).reshape(-1)
    crashed = tensordict.get(("next", keys.CRASHED), torch.zeros_like(done)).reshape(-1)
    names, lengths = torch.unique_consecutive(ids, return_counts=True)
    parts: dict[int, TensorDictBase] = {}
    start = 0
    for name, length in zip(names.tolist(), lengths.tolist(), strict=True):
        stop = start + length
        if name in parts:
            raise ValueError(
                f"trajectory {name} comes in two pieces, the second from row {start} on; expected "
                "the steps of a trajectory next to each other."
            )
        if not done[stop - 1]:
            raise ValueError(
                f"trajectory {name} ends at row {stop - 1} without ('next', 'done'), so its "
                "outcome is not known; expected complete trajectories."
            )
        if crashed[start:stop].any():
            raise ValueError(
                f"trajectory {name} crashed, which says nothing about the policy: drop and count "
                "such trajectories with rftf_torchrl.drop_crashed."
            )
        parts[name] = tensordict[start:stop]
        start = stop
    return parts


def succeeded(trajectory: TensorDictBase) -> bool:
    """Whether any step of a trajectory [T] reached success."""
    return bool(require_entry(trajectory, ("next", keys.SUCCESS)).any())


@nested_keys
def value_curve(
    trajectory: TensorDictBase, *, value_key: NestedKey = keys.TEMPORAL_VALUE
) -> Tensor:
    """The values of the T + 1 states of one trajectory.

    Args:
        trajectory: one trajectory, batch [T], with the value float [T, 1] at the root and under
            ``"next"``.
        value_key: the value's key.

    Returns:
        V(s_0), ..., V(s_T), float [T + 1].

    Raises:
        KeyError: if the values are missing.

    Example:
        >>> from tensordict import TensorDict
        >>> value = torch.tensor([[0.0], [0.5], [0.75]])
        >>> entries = {"temporal_value": value[:2], "next": {"temporal_value": value[1:]}}
        >>> value_curve(TensorDict(entries, [2]))
        tensor([0.0000, 0.5000, 0.7500])
    """
    name = (value_key,) if isinstance(value_key, str) else value_key
    value = require_entry(trajectory, value_key)
    following = require_entry(trajectory, ("next", *name))
    return torch.cat([value.reshape(-1), following.reshape(-1)[-1:]])


def require_entry(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """The entry, or a KeyError that says what is there instead."""
    entry: Tensor | None = tensordict.get(key, None)
    if entry is None:
        present = ", ".join(sorted(map(str, tensordict.keys(True, True))))
        raise KeyError(f"{key!r} is missing from the trajectories, which hold {present}.")
    return entry
