"""The advantages under each critic: what is learned, what judges a state, which reward counts.

======== ============ ============================ ==============================================
critic   network      value function of GAE        reward of GAE
======== ============ ============================ ==============================================
learned  a small one  the network                  success and dense reward
temporal none         the value model              success: its difference is in GAE already
none     none         zero, so returns alone       success and dense reward
group    none         none: :func:`group_advantage` success, within episodes from one state
your own what it builds the network                success and dense reward
======== ============ ============================ ==============================================
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.objectives.llm import MCAdvantage
from torchrl.objectives.value import GAE

from rftf_torchrl import keys
from rftf_torchrl.keys import ADVANTAGE, OUTCOME_REWARD, nested_keys
from rftf_torchrl.nets.entries import required
from rftf_torchrl.nets.evaluate_states import values_of_states
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.objectives.gae import make_gae
from rftf_torchrl.registry import Registry

logger = logging.getLogger(__name__)


@nested_keys
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
    ``vla_grpo``. If a crash removed members of a group, the rest are compared with each other. A
    trajectory that is alone in its group gets 0; if all are, a warning says so.

    Source: Shao et al., "DeepSeekMath", arXiv 2402.03300, section 4.1 (GRPO with outcome
    supervision); Li et al., "SimpleVLA-RL", arXiv 2509.09674.

    Args:
        tensordict: complete trajectories one after another, batch [N].
        group_size: G, trajectories in a group, 2 or more; fewer where some were lost.
        group_key: int64 [N, 1], the same number in all trajectories of a group and in no other.
        reward_key: float32 [N, 1].
        advantage_key: float32 [N, 1], written.
        done_key: bool [N, 1], True at the last decision of each trajectory.

    Returns:
        The same tensordict, with the advantages.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if `group_size` is below 2, or a group has more trajectories than that.

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
    why = "; group_advantage needs group, reward and done."
    groups = required(tensordict, group_key, why).reshape(-1)
    required(tensordict, reward_key, why)
    ends = required(tensordict, done_key, why).reshape(-1).nonzero().squeeze(-1)
    names, counts = groups[ends].unique(return_counts=True)
    if (counts > group_size).any():
        which, many = (int(each[counts > group_size][0]) for each in (names, counts))
        raise ValueError(
            f"group {which} has {many} trajectories and group_size is {group_size}: "
            f"give every group its own number in {group_key!r}."
        )
    if len(counts) and counts.max() == 1:
        logger.warning(
            "no two of the %d trajectories have the same number in %r, so that every advantage is "
            "0: collect each initial state %d times",
            len(names),
            group_key,
            group_size,
        )
    read = tensordict.select(group_key, reward_key, done_key).clone()
    read["_row"] = torch.arange(len(groups), device=groups.device)
    advantage = torch.zeros_like(tensordict.get(reward_key))
    for size in counts[counts > 1].unique().tolist():
        normalise = MCAdvantage(
            size,
            prompt_key=group_key,
            rewards_key=reward_key,
            advantage_key=advantage_key,
            done_key=done_key,
            trajectory_return="sum",
        )
        found = normalise.inv(read[torch.isin(groups, names[counts == size])])
        advantage[found["_row"]] = found.get(advantage_key)
    return tensordict.set(advantage_key, advantage)


CRITICS = Registry(
    "critic",
    "rftf_torchrl.critics",
    {
        "learned": "rftf_torchrl.values.critics:policy_critic",
        "temporal": "rftf_torchrl.values.critics:no_critic",
        "none": "rftf_torchrl.values.critics:no_critic",
        "group": "rftf_torchrl.values.critics:no_critic",
    },
    ("__call__",),
)


@nested_keys
def make_critic(
    critic: str,
    policy: nn.Module,
    spec: Any,
    sizes: ObservationSizes,
    *,
    time_key: NestedKey | None = None,
) -> TensorDictModuleBase | None:
    """Build the network that is learned under a critic.

    Args:
        critic: a name, or ``"module:Name"``: a class or function of your own that receives policy,
            spec and sizes and returns a TensorDict module that writes ``"state_value"``, float
            [*B, 1].
        policy: the policy before it is fine-tuned.
        spec: what describes the policy, see :class:`PolicySpecProtocol`.
        sizes: of the observations.
        time_key: of the time that is left, for a ``"learned"`` critic; None does not tell it.

    Returns:
        The network; None where none is learned.

    Raises:
        ValueError: where there is no such critic, or it does not write ``"state_value"``.

    Example:
        >>> make_critic("learned", nn.Linear(1, 1), None, ObservationSizes(state_dim=7)).out_keys
        ['state_value']
    """
    told = {"time_key": time_key} if critic == "learned" else {}
    network: TensorDictModuleBase | None = CRITICS.find(critic)(policy, spec, sizes, **told)
    written = getattr(network, "out_keys", None)
    if critic not in CRITICS.names and keys.STATE_VALUE not in (written or ()):
        raise ValueError(
            f"critic={critic} must return a TensorDict module that writes {keys.STATE_VALUE!r}, "
            f"got {type(network).__name__} with out_keys {written}."
        )
    return network


@dataclass(frozen=True)
class Advantages:
    """Writes the advantages of a batch of complete trajectories.

    Attributes:
        critic: see :func:`make_critic`.
        network: what it returned.
        gae: with the reward that the critic judges.
        group_size: episodes from one state, for ``"group"``.

    Example:
        >>> from tensordict import TensorDict
        >>> ends = torch.tensor([[False], [True]])
        >>> data = TensorDict({"next": {"done": ends, "terminated": ends}}, [2])
        >>> data["next", "reward"] = torch.tensor([[0.0], [1.0]])
        >>> returns = Advantages.make("none", None, gamma=0.5, lmbda=1.0, average=False)
        >>> returns(data)["advantage"].squeeze(-1).tolist()
        [0.5, 1.0]
    """

    critic: str
    network: TensorDictModuleBase | None
    gae: GAE
    group_size: int = 1

    @classmethod
    def make(
        cls,
        critic: str,
        network: TensorDictModuleBase | None,
        *,
        gamma: float,
        lmbda: float,
        group_size: int = 1,
        average: bool = True,
    ) -> Advantages:
        """Build the estimate for a critic.

        Args:
            critic: see :func:`make_critic`.
            network: what it returned.
            gamma: discount per decision.
            lmbda: trace decay of GAE.
            group_size: episodes from one state, for ``"group"``.
            average: standardise GAE's advantages.

        Returns:
            The estimate.
        """
        reward = keys.OUTCOME_REWARD if critic in ("temporal", "group") else keys.REWARD
        gae = make_gae(gamma=gamma, lmbda=lmbda, average_gae=average, reward_key=reward)
        return cls(critic, network, gae, group_size)

    def __call__(self, data: TensorDictBase) -> TensorDictBase:
        """Write the value function, at the root and under ``"next"``, and the advantages.

        Args:
            data: decisions [N] with rewards; of ``"temporal"``, with values too.

        Returns:
            The data.

        Raises:
            KeyError: if an entry is missing.
            ValueError: see :func:`make_gae` and :func:`group_advantage`.
        """
        if self.critic == "temporal":
            value, following = data[keys.TEMPORAL_VALUE], data["next", keys.TEMPORAL_VALUE]
        elif self.network is None:
            value = following = torch.zeros_like(data["next", keys.REWARD])
        else:
            value, following = values_of_states(self.network, data, out_key=keys.STATE_VALUE)
        data[keys.STATE_VALUE] = value
        data["next", keys.STATE_VALUE] = following
        if self.critic == "group":
            return group_advantage(data, self.group_size)
        estimated: TensorDictBase = self.gae(data)
        return estimated
