"""Write how much of an episode's time is left to every one of its steps."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from rftf_torchrl.keys import TIME_LEFT, TRAJECTORY, nested_keys
from rftf_torchrl.nets.entries import required
from rftf_torchrl.rewards.places import trajectory_lengths


@nested_keys
def label_time_left(
    tensordict: TensorDictBase,
    horizon: int,
    *,
    trajectory_key: NestedKey = TRAJECTORY,
    out_key: NestedKey = TIME_LEFT,
) -> TensorDictBase:
    """Write the share of the decisions that an episode has left, at s_t and at s_{t+1}.

    If an episode ends because time runs out, the return depends on the time that is left. To a
    critic that does not know this time, it is noise.

    Source: Pardo, Tavakoli, Levdik, Kormushev, "Time limits in reinforcement learning", ICML 2018.

    Args:
        tensordict: complete trajectories one after another, batch [N].
        horizon: decisions after which an episode runs out of time.
        trajectory_key: int64 [N].
        out_key: float32 [N, 1], written at the root and under ``"next"``.

    Returns:
        ``tensordict``.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if trajectories are not one after another, or one is longer than the horizon.

    Example:
        >>> from tensordict import TensorDict
        >>> data = TensorDict({"next": {}, ("collector", "traj_ids"): torch.tensor([0, 0, 1])}, [3])
        >>> label_time_left(data, horizon=4)["time_left"].squeeze(-1).tolist()
        [1.0, 0.75, 1.0]
    """
    trajectory = required(tensordict, trajectory_key, ", so the time of a step is not known.")
    lengths = trajectory_lengths(trajectory, trajectory_key, "the time of a step is counted")
    if max(lengths, default=0) > horizon:
        raise ValueError(
            f"a trajectory has {max(lengths)} decisions and the horizon is {horizon}: pass the "
            "environment's own."
        )
    counted = [torch.arange(length) for length in lengths] or [torch.arange(0)]
    steps = torch.cat(counted).to(tensordict.device)
    left = 1 - steps.float().unsqueeze(-1) / horizon
    tensordict.set(out_key, left)
    following = required(tensordict, "next", ", so the time of the next state has no place.")
    following.set(out_key, left - 1 / horizon)
    return tensordict.set("next", following)
