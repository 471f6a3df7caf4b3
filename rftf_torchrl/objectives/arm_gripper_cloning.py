"""Behaviour cloning of a policy with a normal arm and a Bernoulli gripper."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.objectives._cloning import ChunkCloningLoss
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC


class ArmGripperCloningLoss(ChunkCloningLoss):
    r"""Clones demonstrations into a policy from :func:`~rftf_torchrl.arm_gripper_actor`.

    .. math::
        L = \frac{1}{D} \sum_d | \mu_d - a_d | + c \, \mathrm{BCE}(\ell, g \ge 0)

    averaged over actions that are not padding. The arm's standard deviation gets no gradient: it
    is how far fine-tuning explores, not how far the mean is off. Used like
    :class:`torchrl.objectives.BCLoss`, whose key of the loss it has.

    Args:
        actor_network: the policy.
        gripper_coeff: c, the weight of the gripper.

    Raises:
        ValueError: if the policy does not write ``"arm_loc"`` and ``"logits"``.

    Examples:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from rftf_torchrl import arm_gripper_actor
        >>> network = TensorDictModule(
        ...     lambda x: (x.new_zeros(5, 4, 2), x.new_zeros(5, 4)), ["x"], ["arm_loc", "logits"]
        ... )
        >>> actor = arm_gripper_actor(network, chunk_size=4, arm_dim=2)
        >>> data = TensorDict({"x": torch.zeros(5)}, [5])
        >>> data["vla_action", "chunk"] = torch.ones(5, 4, 3)
        >>> round(float(ArmGripperCloningLoss(actor)(data)["loss_bc"]), 4)  # 1 + log 2
        1.6931
    """

    def __init__(
        self, actor_network: ProbabilisticTensorDictSequential, *, gripper_coeff: float = 1.0
    ) -> None:
        if not {ARM_LOC, keys.LOGITS} <= set(actor_network.out_keys):
            raise ValueError(
                f"ArmGripperCloningLoss needs a policy that writes {ARM_LOC!r} and {keys.LOGITS!r},"
                f" it writes {list(actor_network.out_keys)}: clone other policies with BCLoss."
            )
        super().__init__(actor_network, actor_network)
        self.gripper_coeff = gripper_coeff

    def _loss(self, tensordict: TensorDictBase, action: Tensor, mask: Tensor | None) -> Tensor:
        inputs = tensordict.select(*self.actor_network.in_keys, strict=False)
        found = self.actor_network.get_dist_params(inputs)
        arm = (found[ARM_LOC].float() - action[..., :-1]).abs().mean(-1)
        opened = (action[..., -1] >= 0).float()
        gripper = nn.functional.binary_cross_entropy_with_logits(
            found[keys.LOGITS].float(), opened, reduction="none"
        )
        each: Tensor = arm + self.gripper_coeff * gripper
        weight = torch.ones_like(each) if mask is None else mask.float()
        loss: Tensor = (each * weight).sum() / weight.sum().clamp_min(1)
        return loss
