"""Advantages without a critic: an episode's outcome against others from the same initial state."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torchrl.objectives.llm import MCAdvantage

from rftf_torchrl.keys import ADVANTAGE, OUTCOME_REWARD


def group_advantage(
    tensordict: TensorDictBase,
    group_size: int,
    *,
    group_key: NestedKey = "episode_seed",
    reward_key: NestedKey = ("next", OUTCOME_REWARD),
    advantage_key: NestedKey = ADVANTAGE,
    done_key: NestedKey = ("next", "done"),
) -> TensorDictBase:
    r"""Normalise each trajectory's return within the group that shares its initial state.

    .. math::
        A_i = \frac{R_i - \mathrm{mean}(R_1, \ldots, R_G)}{\mathrm{std}(R_1, \ldots, R_G)},
        \qquad R_i = \sum_t r_{i,t}

    Every decision of trajectory i has the advantage :math:`A_i`. A group in which all returns are
    equal has advantages of zero. TorchRL's ``MCAdvantage`` computes them, as in its recipe
    ``vla_grpo``; a group that lost a member to a crash is left out, as ``MCAdvantage`` would wait
    for it.

    Source: Shao et al., "DeepSeekMath", arXiv 2402.03300, section 4.1 (GRPO with outcome
    supervision); Li et al., "SimpleVLA-RL", arXiv 2509.09674.

    Args:
        tensordict: complete trajectories one after another, batch [N].
        group_size: G, trajectories in a group, 2 or more.
        group_key: int64 [N, 1], the same number in all trajectories of a group and in no other.
        reward_key: float32 [N, 1].
        advantage_key: float32 [N, 1], written.
        done_key: bool [N, 1], True at the last decision of each trajectory.

    Returns:
        The decisions of the complete groups, group by group.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if `group_size` is below 2, a group has more trajectories than that, or none is
            complete.

    Example:
        >>> from tensordict import TensorDict
        >>> ends = torch.ones(4, 1, dtype=torch.bool)
        >>> outcome = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
        >>> data = TensorDict({"next": {"outcome_reward": outcome, "done": ends}}, [4])
        >>> data["episode_seed"] = torch.tensor([[5], [5], [7], [7]])
        >>> group_advantage(data, 2)["advantage"].squeeze(-1)
        tensor([-0.7071,  0.7071,  0.0000,  0.0000])
    """
    if group_size < 2:
        raise ValueError(f"group_size is {group_size}; a group needs at least 2 trajectories.")
    for key in (group_key, reward_key, done_key):
        if tensordict.get(key, None) is None:
            raise KeyError(f"{key!r} is missing; group_advantage needs group, reward and done.")
    ends = tensordict.get(done_key).reshape(-1).nonzero().squeeze(-1)
    groups = tensordict.get(group_key).reshape(-1)
    names, counts = groups[ends].unique(return_counts=True)
    if (counts > group_size).any():
        which = int(names[counts > group_size][0])
        raise ValueError(
            f"group {which} has {int(counts.max())} trajectories and group_size is {group_size}: "
            f"give every group its own number in {group_key!r}."
        )
    whole = torch.isin(groups, names[counts == group_size])
    if not whole.any():
        raise ValueError(
            f"no group has {group_size} trajectories; the largest of {len(names)} has "
            f"{int(counts.max()) if len(counts) else 0}. Collect each initial state "
            f"{group_size} times."
        )
    normalise = MCAdvantage(
        group_size,
        prompt_key=group_key,
        rewards_key=reward_key,
        advantage_key=advantage_key,
        done_key=done_key,
        trajectory_return="sum",
    )
    return normalise.inv(tensordict[whole])
