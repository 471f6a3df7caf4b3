"""Losses that clone demonstrated chunks into policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives import BCLoss
from torchrl.objectives.common import LossModule

from rftf_torchrl import keys
from rftf_torchrl.functional.flow import flow_matching_error
from rftf_torchrl.functional.reduction import Reduction, reduced
from rftf_torchrl.nets.finite_output import can_be_read
from rftf_torchrl.objectives.loss_keys import LossKeys, row_mask
from rftf_torchrl.objectives.reference import optional_keys
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC, opened_gripper
from rftf_torchrl.policies.heads.flow import FlowActor
from rftf_torchrl.settings import check_value


class ChunkCloningLoss(LossKeys, LossModule):
    """A loss of demonstrated chunks; what is left to say is :meth:`_loss`."""

    @dataclass
    class _AcceptedKeys:
        """Keys of the data.

        Attributes:
            action: the demonstrated chunk, float [*B, H, A].
            pad_mask: bool [*B, H], True at padding; absent = none.
        """

        action: NestedKey = keys.CHUNK
        pad_mask: NestedKey = keys.CHUNK_IS_PAD

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        network: TensorDictModuleBase,
        reduction: Reduction,
    ) -> None:
        super().__init__()
        check_value("reduction", reduction, Reduction)
        self.actor_network = actor_network
        self.reduction = reduction
        optional = optional_keys(actor_network)
        self._read = [key for key in network.in_keys if key not in optional]

    @property
    def functional(self) -> bool:
        """The policy keeps its own weights."""
        return False

    @property
    def in_keys(self) -> list[NestedKey]:
        """What has to be there."""
        return [*self._read, self.tensor_keys.action]

    @property
    def _dispatched_keys(self) -> list[NestedKey]:
        """What keyword arguments may name."""
        return [*self.in_keys, self.tensor_keys.pad_mask]

    def _written(self) -> list[str]:
        return ["loss_bc"]

    @dispatch(source="_dispatched_keys")
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the loss.

        Args:
            tensordict: demonstrations with the network's inputs and the chunk, any batch size.

        Returns:
            ``"loss_bc"``, a float32 scalar; with ``reduction="none"`` [*B, H], 0 at padding.

        Raises:
            ValueError: if every action is padding.
        """
        action = tensordict.get(self.tensor_keys.action).float()
        mask = self._counted(tensordict)
        if mask is not None:  # before any arithmetic: 0 * NaN is NaN, in gradients too
            if can_be_read(mask) and not mask.any():
                raise ValueError(
                    f"every action at {self.tensor_keys.action!r} is padding by "
                    f"{self.tensor_keys.pad_mask!r}: there is nothing to clone."
                )
            action = torch.where(mask.unsqueeze(-1), action, action.nan_to_num(0.0, 0.0, 0.0))
        each = self._loss(tensordict, action, mask)
        return TensorDict({"loss_bc": reduced(each, mask, self.reduction)})

    def count(self, tensordict: TensorDictBase) -> Tensor | int:
        """How many actions the mean runs over, for :func:`~rftf_torchrl.accumulate_gradients`."""
        mask = self._counted(tensordict)
        action = tensordict.get(self.tensor_keys.action)
        return action[..., 0].numel() if mask is None else mask.sum()

    def _counted(self, tensordict: TensorDictBase) -> Tensor | None:
        """The actions that are not padding, bool [*B, H]; None for all."""
        padding = tensordict.get(self.tensor_keys.pad_mask, None)
        mask, rows = None if padding is None else ~padding, row_mask(self, tensordict)
        if rows is None:
            return mask
        shape = tensordict.get(self.tensor_keys.action).shape[:-1]
        rows = rows.reshape(*shape[:-1], 1).expand(shape)
        return rows if mask is None else mask & rows

    def _loss(self, tensordict: TensorDictBase, action: Tensor, mask: Tensor | None) -> Tensor:
        """Of each action [*B, H, A]: [*B, H], 0 where the mask, bool [*B, H], is False."""
        raise NotImplementedError


class ArmGripperCloningLoss(ChunkCloningLoss):
    r"""Clones demonstrations into a policy from :func:`~rftf_torchrl.arm_gripper_actor`.

    .. math::
        L = \frac{1}{D} \sum_d | \mu_d - a_d | + c \, \mathrm{BCE}(\ell, g = 1)

    averaged over actions that are not padding. The arm's standard deviation gets no gradient: it
    is how far fine-tuning explores, not how far the mean is off. Used like
    :class:`torchrl.objectives.BCLoss`, whose key of the loss it has.

    Args:
        actor_network: the policy.
        gripper_coeff: c, the weight of the gripper.
        gripper_threshold: the least number g that is an open gripper, 0.5 for demonstrations of 0
            and 1, say; None takes 1 as open and -1 as closed, and refuses others.
        reduction: ``"mean"`` or ``"sum"`` over actions, or ``"none"``, which keeps one number an
            action.

    Raises:
        ValueError: if the policy does not write ``"arm_loc"`` and ``"logits"``, or the word of
            ``reduction`` is unknown; on use, where a
            demonstrated gripper is neither 1 nor -1 and there is no threshold.

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
        self,
        actor_network: ProbabilisticTensorDictSequential,
        *,
        gripper_coeff: float = 1.0,
        gripper_threshold: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        if not {ARM_LOC, keys.LOGITS} <= set(actor_network.out_keys):
            raise ValueError(
                f"ArmGripperCloningLoss needs a policy that writes {ARM_LOC!r} and {keys.LOGITS!r},"
                f" it writes {list(actor_network.out_keys)}: clone other policies with BCLoss."
            )
        super().__init__(actor_network, actor_network, reduction)
        self.gripper_coeff = gripper_coeff
        self.gripper_threshold = gripper_threshold

    def _loss(self, tensordict: TensorDictBase, action: Tensor, mask: Tensor | None) -> Tensor:
        inputs = tensordict.select(*self.actor_network.in_keys, strict=False)
        found = self.actor_network.get_dist_params(inputs)
        arm = (found[ARM_LOC].float() - action[..., :-1]).abs().mean(-1)
        opened = opened_gripper(action[..., -1], mask, self.gripper_threshold).float()
        gripper = nn.functional.binary_cross_entropy_with_logits(
            found[keys.LOGITS].float(), opened, reduction="none"
        )
        each: Tensor = arm + self.gripper_coeff * gripper
        return each if mask is None else each * mask.float()


class TokenCloningLoss(BCLoss):
    r"""Clones demonstrations into a policy with action tokens.

    .. math::
        L = -\log \pi(a \mid s)

    summed over the executed actions of a chunk. TorchRL's ``BCLoss`` first lets the policy act, and
    then scores the demonstrated chunk by the distribution after it. A policy that writes its tokens
    one after another (:class:`~rftf_torchrl.AutoregressiveActor`) would so score each demonstrated
    token after its *own* earlier ones. This loss asks for the distribution alone: each token is
    scored after the demonstrated ones, in one pass.

    Actions at the key ``pad_mask`` count for nothing: bool [*B, H], True at padding. As in
    ``BCLoss`` there is no such key by default: ``set_keys(pad_mask="action_is_pad")``.

    Args:
        actor_network: the policy.
        **kwargs: of :class:`torchrl.objectives.BCLoss`; there is no ``loss_function``.

    Raises:
        ValueError: for a ``loss_function``; for padding, where the policy reads no mask of
            executed actions.

    Examples:
        >>> from tensordict.nn import TensorDictModule
        >>> from rftf_torchrl import token_actor
        >>> network = TensorDictModule(lambda x: x.new_zeros(5, 4, 2, 8), ["x"], ["logits"])
        >>> actor = token_actor(network, chunk_size=4, action_dim=2, bins=8)
        >>> loss = TokenCloningLoss(actor)
        >>> loss.set_keys(action=("vla_action", "chunk"))
        >>> data = TensorDict({"x": torch.zeros(5)}, [5])
        >>> data["vla_action", "chunk"] = torch.zeros(5, 4, 2)
        >>> round(float(loss(data)["loss_bc"]), 3)  # 8 tokens of log 8 each
        16.636
    """

    def __init__(self, actor_network: TensorDictModuleBase, **kwargs: Any) -> None:
        super().__init__(actor_network, **kwargs)
        if self.loss_function is not None:
            raise ValueError(
                f"loss_function={self.loss_function!r}: tokens are cloned by their log-probability "
                "alone, so leave it out."
            )
        self._masks = optional_keys(actor_network) - set(actor_network.out_keys)

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes ``"loss_bc"``, a scalar; with ``reduction="none"`` [*B].

        Raises:
            ValueError: if the policy writes its chunk elsewhere than where the data have it, or
                padding would be cloned.
        """
        chunk = self.tensor_keys.action
        if chunk not in self.actor_network.out_keys:
            raise ValueError(
                f"the demonstrations' chunk is {chunk!r}, and the policy writes "
                f"{', '.join(map(repr, self.actor_network.out_keys))}: it scores what lies where "
                "its own chunk does, so put the demonstrations there and set_keys(action=...)."
            )
        data = tensordict.copy()
        padding = None
        if self.tensor_keys.pad_mask is not None:
            padding = data.get(self.tensor_keys.pad_mask, None)
        if padding is not None:
            if not self._masks and can_be_read(padding) and padding.any():
                raise ValueError(
                    f"{self.tensor_keys.pad_mask!r} marks padding, and this policy reads no mask "
                    "of executed actions, so the padding would be cloned: leave those rows out, or "
                    "set_keys(pad_mask=None)."
                )
            for key in self._masks:
                executed = data.get(key, None)
                data[key] = ~padding if executed is None else executed & ~padding
        with self.actor_network_params.to_module(self.actor_network, preserve_module_state=False):
            chunks = self.actor_network.get_dist(data)
            each = -chunks.log_prob(data.get(self.tensor_keys.action))
        return TensorDict({"loss_bc": self._reduce_loss(each, tensordict=data, mask=None)})


class FlowMatchingLoss(ChunkCloningLoss):
    r"""Clones demonstrations into the velocity network of a flow policy.

    .. math::
        L = E_{\tau, \epsilon} \big\| v(\tau a + (1 - \tau) \epsilon, \tau, f(s))
            - (a - \epsilon) \big\|^2

    One time and one noise are drawn per decision and call. Used like
    :class:`torchrl.objectives.BCLoss`, whose key of the loss it has. A learned noise
    (:class:`~rftf_torchrl.FlowNoise`) gets no gradient: PPO trains it.

    Source: Lipman et al. 2023, arXiv 2210.02747; Black et al. 2024, "pi_0", arXiv 2410.24164,
    appendix B (the beta distribution of times, which favours noisy chunks).

    Args:
        actor_network: a policy from :func:`~rftf_torchrl.flow_actor`.
        times: ``"uniform"``, or ``"beta"``: :math:`\tau = 0.999 (1 - u)` with
            :math:`u \sim \mathrm{Beta}(1.5, 1)`.
        reduction: ``"mean"`` or ``"sum"`` over actions, or ``"none"``, which keeps one number an
            action.

    Raises:
        ValueError: if the policy is no flow policy or a word is unknown.

    Examples:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from rftf_torchrl import ChunkVelocity, flow_actor
        >>> network = TensorDictModule(torch.nn.Linear(3, 8), ["state"], ["features"])
        >>> actor = flow_actor(network, ChunkVelocity(8, (4, 2)), chunk_size=4, action_dim=2)
        >>> data = TensorDict({"state": torch.zeros(5, 3)}, [5])
        >>> data["vla_action", "chunk"] = torch.zeros(5, 4, 2)
        >>> bool(FlowMatchingLoss(actor)(data)["loss_bc"] > 0)
        True
    """

    def __init__(
        self,
        actor_network: FlowActor,
        *,
        times: Literal["uniform", "beta"] = "uniform",
        reduction: Reduction = "mean",
    ) -> None:
        if not isinstance(actor_network, FlowActor):
            raise ValueError(
                f"FlowMatchingLoss needs a policy from flow_actor, got "
                f"{type(actor_network).__name__}: clone other policies with BCLoss."
            )
        if times not in ("uniform", "beta"):
            raise ValueError(f"times must be 'uniform' or 'beta', got {times!r}.")
        super().__init__(actor_network, actor_network.det_part.module[0], reduction)
        self.times = times

    def _loss(self, tensordict: TensorDictBase, action: Tensor, mask: Tensor | None) -> Tensor:
        network, head = self.actor_network.module[0], self.actor_network.head
        features = network(tensordict.select(*network.in_keys, strict=False))
        tau = self._draw_times(action)
        noise = torch.randn_like(action)
        weight = tau[..., None, None]
        velocity = head.velocity(
            weight * action + (1 - weight) * noise,
            tau,
            *(features.get(key) for key in head.feature_keys),
        )
        return flow_matching_error(velocity, action, noise, mask, reduction="none")

    def _draw_times(self, action: Tensor) -> Tensor:
        uniform = torch.rand(action.shape[:-2], device=action.device)
        if self.times == "uniform":
            return uniform
        return 0.999 * (1 - uniform ** (1 / 1.5))  # inverse distribution function of Beta(1.5, 1)
