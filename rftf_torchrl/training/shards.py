"""A loss of which each process trains a part (FSDP2), beside one with the whole weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rftf_torchrl.objectives.ppo import RFTFPPOLoss
from rftf_torchrl.training.activations import layer_names


def shard(loss: nn.Module) -> None:
    """Give each process a part of what trains: layer by layer, and the rest with the loss.

    Raises:
        ValueError: naming a parameter that cannot be divided.
    """
    kinds = {p.dtype for p in loss.parameters() if p.requires_grad}
    if len(kinds) > 1:
        raise ValueError(f"Its trained parameters are of several types, {sorted(map(str, kinds))}.")
    device = next(loss.parameters()).device.type
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    frozen = {p for p in loss.parameters() if not p.requires_grad}
    for name in layer_names(loss):
        fully_shard(loss.get_submodule(name), mesh=mesh, ignored_params=frozen)
    fully_shard(loss, mesh=mesh, ignored_params=frozen)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimizer trains, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class Shards:
    """The loss and the optimizer of the update, and the whole ones that everything else sees.

    Attributes:
        whole_loss: has the policy that acts and is saved.
        whole_optimizer: makes no step; its state is that of the last checkpoint.
        loss: what is minimised, sharded.
        optimizer: of its parameters.
        pairs: a whole parameter and the sharded one, for all that train.
    """

    whole_loss: RFTFPPOLoss
    whole_optimizer: torch.optim.Optimizer
    loss: RFTFPPOLoss
    optimizer: torch.optim.Optimizer
    pairs: list[tuple[Tensor, Tensor]]

    @torch.no_grad()
    def gather(self) -> None:
        """Bring the whole weights up to date, in all processes at once."""
        for whole, part in self.pairs:
            whole.copy_(_whole(part))
        self.whole_loss.kl_coeff.copy_(self.loss.kl_coeff)

    def gather_optimizer(self) -> None:
        """Bring the first process's whole optimizer up to date, for a checkpoint; call it in all."""
        for whole, part in self.pairs:
            state = {name: _whole(value) for name, value in self.optimizer.state[part].items()}
            if dist.get_rank() == 0:
                self.whole_optimizer.state[whole] = {n: value.cpu() for n, value in state.items()}

    def scatter_optimizer(self) -> None:
        """Take over the whole optimizer's state, as a checkpoint left it."""
        for whole, part in self.pairs:
            assert isinstance(part, DTensor)
            for name, value in self.whole_optimizer.state.pop(whole, {}).items():
                if value.shape == part.shape:
                    value = distribute_tensor(
                        value, part.device_mesh, part.placements, src_data_rank=None
                    )
                self.optimizer.state[part][name] = value


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value
