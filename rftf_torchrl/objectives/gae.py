"""Generalised advantage estimates over decisions, wired for this project's keys."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase, is_tensor_collection
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torchrl.objectives.value import GAE

from rftf_torchrl.keys import CRASHED, MASK, REWARD, TRAJECTORY, nested_keys
from rftf_torchrl.settings import Fraction, check_value


@nested_keys
def make_gae(
    *,
    gamma: float,
    lmbda: float,
    value_network: TensorDictModuleBase | None = None,
    reward_key: NestedKey = REWARD,
    average_gae: bool = False,
    group_key: NestedKey | None = None,
    **kwargs: Any,
) -> GAE:
    r"""Build TorchRL's ``GAE`` so that terminated, truncated and crashed are kept apart.

    .. math::
        \delta_t = r_t + \gamma (1 - terminated_t) V(s_{t+1}) - V(s_t), \qquad
        A_t = \delta_t + \gamma \lambda (1 - done_t) A_{t+1}

    A termination has no bootstrap, a truncation bootstraps from V(s_{t+1}), and a crash is an
    error: drop such trajectories first with :func:`drop_crashed`. Data is [N], complete
    trajectories one after another in time order, or [B, T].

    Args:
        gamma: discount per decision.
        lmbda: trace decay.
        value_network: the critic. None reads ``"state_value"``, float [*B, 1], at the root and
            under ``"next"``: ``values_of_states`` puts it there by T + 1 forwards per trajectory,
            where a network here costs 2 T.
        reward_key: float [*B, 1], read under ``"next"``.
        average_gae: standardise the advantages; that of a single decision, or of a group of one, is
            0.
        group_key: standardise within the groups of this integer entry, ``"task_id"`` say.
        **kwargs: further arguments of :class:`torchrl.objectives.value.GAE`.

    Returns:
        A stock :class:`torchrl.objectives.value.GAE`, with hooks around it. It writes
        ``"advantage"`` and ``"value_target"`` = A_t + V(s_t), float [*B, 1]; other keys by its
        ``set_keys``.

    Raises:
        ValueError: ``group_key`` without ``average_gae``; on use, a crashed step, or padding that
            ``average_gae`` would count.
        KeyError: on use, ``("next", "terminated")`` is missing.

    Source: Schulman et al., arXiv 1506.02438, equation 16.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> ends = torch.tensor([[False], [True]])
        >>> data = TensorDict({"next": {"done": ends, "terminated": ends}}, [2])
        >>> data["state_value"] = torch.tensor([[0.0], [0.5]])
        >>> data["next", "state_value"] = torch.tensor([[0.5], [9.0]])
        >>> data["next", "reward"] = torch.tensor([[0.0], [1.0]])
        >>> make_gae(gamma=1.0, lmbda=1.0)(data)["advantage"].squeeze(-1).tolist()
        [1.0, 0.5]
    """
    check_value("gamma", gamma, Fraction)
    check_value("lmbda", lmbda, Fraction)
    if group_key is not None and not average_gae:
        raise ValueError(
            f"group_key={group_key!r} has no effect without standardisation: pass "
            "average_gae=True, or no group_key."
        )
    gae = GAE(
        gamma=gamma,
        lmbda=lmbda,
        value_network=value_network,
        average_gae=average_gae,
        group_key=group_key,
        **kwargs,
    )
    gae.set_keys(reward=reward_key)
    gae.register_forward_pre_hook(_check_input, with_kwargs=True)
    if average_gae:
        gae.register_forward_hook(_centre_alone)
    return gae


@nested_keys
def drop_crashed(
    tensordict: TensorDictBase,
    *,
    crashed_key: NestedKey = ("next", CRASHED),
    trajectory_key: NestedKey = TRAJECTORY,
) -> tuple[TensorDictBase, int]:
    """Drop every step of the trajectories in which the simulator crashed, and count these.

    A crash says nothing about the policy, so such a trajectory is neither a success nor a failure.

    Args:
        tensordict: transitions of shape [N], complete trajectories one after another.
        crashed_key: bool [N, 1]; without it nothing crashed.
        trajectory_key: int64 [N].

    Returns:
        The remaining transitions (possibly none; ``tensordict`` itself if nothing crashed), and
        how many trajectories were dropped.

    Raises:
        ValueError: something crashed in data that is not flat.
        KeyError: something crashed and ``trajectory_key`` is missing.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> crashed = torch.tensor([[False], [True], [False]])
        >>> data = TensorDict({"next": {"crashed": crashed}}, [3])
        >>> data["collector", "traj_ids"] = torch.tensor([0, 0, 1])
        >>> rest, dropped = drop_crashed(data)
        >>> len(rest), dropped
        (1, 1)
    """
    crashed = tensordict.get(crashed_key, None)
    if crashed is None or not crashed.any():
        return tensordict, 0
    if tensordict.batch_dims != 1:
        raise ValueError(
            f"Crashed trajectories can only be dropped from a flat batch [N], got batch size "
            f"{tuple(tensordict.batch_size)}. Collect with traj_format='cat'."
        )
    ids = tensordict.get(trajectory_key, None)
    if ids is None:
        raise KeyError(
            f"{int(crashed.sum())} steps crashed, but {trajectory_key!r} is missing, so their "
            "trajectories cannot be dropped. Collectors write it (trajs_per_batch)."
        )
    ids = ids.reshape(-1)
    bad = ids[crashed.reshape(-1) != 0].unique()
    return tensordict[~torch.isin(ids, bad)], len(bad)


def _centre_alone(gae: GAE, _: Any, found: Any) -> None:
    """One decision has no standard deviation; TorchRL's would be NaN."""
    advantage = found.get(gae.tensor_keys.advantage) if is_tensor_collection(found) else found[0]
    if advantage.numel() == 1:
        advantage.zero_()


def _check_input(gae: GAE, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse data on which ``GAE`` would silently be wrong."""
    tensordict = args[0] if args else kwargs.get("tensordict")
    if tensordict is None:
        return
    terminated_key = unravel_key(("next", gae.tensor_keys.terminated))
    if tensordict.get(terminated_key, None) is None:
        raise KeyError(
            f"{terminated_key!r} is missing. Without it every done would count as a termination "
            "and truncated trajectories would lose their bootstrap."
        )
    crashed = tensordict.get(("next", CRASHED), None)
    if crashed is not None and crashed.any():
        ids = tensordict.get(TRAJECTORY, None)
        which = "of unknown id"
        if ids is not None:
            bad = ids.reshape(-1)[crashed.reshape(-1) != 0].unique().tolist()
            which = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise ValueError(
            f"Trajectories {which} contain a crashed step (('next', {CRASHED!r})), which is "
            "neither a termination nor a truncation. Drop them first with drop_crashed."
        )
    mask = tensordict.get(MASK, None)
    if gae.average_gae and mask is not None and not mask.all():
        raise ValueError(
            f"average_gae would count the {int((~mask).sum())} padded steps of "
            "('collector', 'mask'). Collect with traj_format='cat', or drop the padding first."
        )
