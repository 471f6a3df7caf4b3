"""Behaviour cloning of a policy with a normal arm and a Bernoulli gripper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, dispatch
from tensordict.utils import NestedKey
from torch import nn
from torchrl.objectives.common import LossModule

from rftf_torchrl import keys
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC


class ArmGripperCloningLoss(LossModule):
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

    @dataclass
    class _AcceptedKeys:
        """Keys of the data.

        Attributes:
            action: the demonstrated chunk, float [*B, H, D + 1], the gripper last.
            pad_mask: bool [*B, H], True at padding; absent = none.
        """

        action: NestedKey = keys.CHUNK
        pad_mask: NestedKey = keys.CHUNK_IS_PAD

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys

    def __init__(
        self, actor_network: ProbabilisticTensorDictSequential, *, gripper_coeff: float = 1.0
    ) -> None:
        super().__init__()
        if not {ARM_LOC, keys.LOGITS} <= set(actor_network.out_keys):
            raise ValueError(
                f"ArmGripperCloningLoss needs a policy that writes {ARM_LOC!r} and {keys.LOGITS!r},"
                f" it writes {list(actor_network.out_keys)}: clone other policies with BCLoss."
            )
        self.actor_network = actor_network
        self.gripper_coeff = gripper_coeff
        self.in_keys = [*actor_network.in_keys, self.tensor_keys.action]
        self.out_keys = ["loss_bc"]

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        """There is no value estimator to tell."""

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the loss.

        Args:
            tensordict: demonstrations with the network's inputs and the chunk, any batch size.

        Returns:
            ``"loss_bc"``, a float32 scalar.
        """
        inputs = tensordict.select(*self.actor_network.in_keys, strict=False)
        found = self.actor_network.get_dist_params(inputs)
        action = tensordict.get(self.tensor_keys.action).float()
        padding = tensordict.get(self.tensor_keys.pad_mask, None)
        arm = (found[ARM_LOC].float() - action[..., :-1]).abs().mean(-1)
        opened = (action[..., -1] >= 0).float()
        gripper = nn.functional.binary_cross_entropy_with_logits(
            found[keys.LOGITS].float(), opened, reduction="none"
        )
        each = arm + self.gripper_coeff * gripper
        weight = torch.ones_like(each) if padding is None else (~padding).float()
        return TensorDict({"loss_bc": (each * weight).sum() / weight.sum().clamp_min(1)})
