"""What losses of demonstrated chunks share."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.common import LossModule

from rftf_torchrl import keys


class ChunkCloningLoss(LossModule):
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
        self, actor_network: ProbabilisticTensorDictSequential, network: TensorDictModuleBase
    ) -> None:
        super().__init__()
        self.actor_network = actor_network
        self.in_keys = [*network.in_keys, self.tensor_keys.action]
        self.out_keys = ["loss_bc"]

    def _forward_value_estimator_keys(self, **kwargs: NestedKey) -> None:
        """Nothing to forward: this loss has no value estimator."""

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the loss.

        Args:
            tensordict: demonstrations with the network's inputs and the chunk, any batch size.

        Returns:
            ``"loss_bc"``, a float32 scalar.
        """
        action = tensordict.get(self.tensor_keys.action).float()
        padding = tensordict.get(self.tensor_keys.pad_mask, None)
        mask = None if padding is None else ~padding
        return TensorDict({"loss_bc": self._loss(tensordict, action, mask)})

    def _loss(self, tensordict: TensorDictBase, action: Tensor, mask: Tensor | None) -> Tensor:
        """The mean over actions [*B, H, A] where the mask, bool [*B, H], is True."""
        raise NotImplementedError
