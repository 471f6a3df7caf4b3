"""RFTFPPOLoss in TorchRL's trainers."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase
from torchrl.trainers import Trainer, TrainerHookBase

from rftf_torchrl.objectives.ppo import RFTFPPOLoss


class ReferenceHook(TrainerHookBase):
    """Writes the reference into each batch, and adapts the coefficient after its epochs.

    :class:`torchrl.trainers.algorithms.PPOTrainer` knows nothing of a reference; this hook calls
    :meth:`RFTFPPOLoss.add_reference` where a batch arrives and :meth:`RFTFPPOLoss.adapt_kl` where
    its updates are done, by the mean divergence of the last epoch, and logs ``"kl_coeff"``. The
    coefficient is a buffer of the loss, which the trainer saves.

    Args:
        loss: the trainer's loss, built with a ``reference_actor``.
        minibatch: decisions per forward pass of the reference.

    Raises:
        ValueError: if the loss has no reference.

    Examples:
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from rftf_torchrl import gaussian_actor
        >>> network = TensorDictModule(
        ...     nn.Sequential(nn.Linear(3, 8), nn.Unflatten(-1, (4, 2))), ["state"], ["loc"]
        ... )
        >>> actor = gaussian_actor(network, chunk_size=4, action_dim=2)
        >>> hook = ReferenceHook(RFTFPPOLoss(actor, reference_actor=actor))
        >>> # trainer = PPOTrainer(loss_module=hook.loss, ...); hook.register(trainer)
    """

    def __init__(self, loss: RFTFPPOLoss, *, minibatch: int = 256) -> None:
        if loss.reference_actor is None:
            raise ValueError("the loss has no reference: pass reference_actor when you build it.")
        self.loss = loss
        self.minibatch = minibatch

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Write the reference's distribution."""
        return self.loss.add_reference(batch, minibatch=self.minibatch)

    def adapt(self, steps: int, losses: TensorDictBase | None) -> dict[str, float] | None:
        """Adapt the coefficient, and tell what it is."""
        measured = self.loss.kl_names[1]
        if losses is None or losses.get(measured, None) is None:
            return None
        return {"kl_coeff": self.loss.adapt_kl(losses.get(measured))}

    def register(self, trainer: Trainer, name: str = "reference") -> None:
        """Hang the hook into a trainer."""
        trainer.register_op("batch_process", self)
        trainer.register_op("post_optim_complete_log", self.adapt)
        trainer.register_module(name, self)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the coefficient is in the loss."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
