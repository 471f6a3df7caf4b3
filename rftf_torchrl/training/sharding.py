"""A copy of a policy that learns, of whose layers each process holds a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from rftf_torchrl.errors import UserError
from rftf_torchrl.objectives.ppo import RFTFPPOLoss
from rftf_torchrl.training.processes import full, is_first, started_processes

Networks = tuple[nn.Module, nn.Module | None]
MIXED = "mixed torch.Tensor and DTensor"
"""What Torch says where a layer's weights are read and the layer was not called."""


class ShardedCopy:
    """Learns in place of policy and critic, with a part of each layer in each process.

    Layers are what stands in an ``nn.ModuleList`` or ``nn.Sequential`` of the policy. FSDP2 gathers
    one where it is called, and keeps a part of its weights, gradients and optimizer state. What
    stands outside, and the critic, each process has. The first process has the policy itself,
    too, to act with; the others' is emptied.

    Args:
        networks: policy and critic, or None.
        loss: of these; its coefficients are taken over.
        optimizer: of these; its state is taken over.
        build: makes loss and optimizer of the copies.
        device: of the copies.

    Raises:
        UserError: where the policy has no such layer.
    """

    def __init__(
        self,
        networks: Networks,
        loss: RFTFPPOLoss,
        optimizer: Optimizer,
        build: Callable[[nn.Module, nn.Module | None], tuple[RFTFPPOLoss, Optimizer]],
        device: torch.device,
    ) -> None:
        copies: Networks = deepcopy(networks)
        layers = list(_layers(copies))
        if not layers:
            raise UserError(
                "ppo.shard=true: this policy has no layer to divide, that is, none in an "
                "nn.ModuleList or nn.Sequential with weights of its own. Leave out ppo.shard"
            )
        mesh = init_device_mesh(device.type, (started_processes(),))
        for layer in layers:
            sharded = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
        for copied in _present(copies):
            copied.to(device)
        self.loss, self.optimizer = build(*copies)
        self._whole = networks, loss, optimizer
        self._copies = copies
        self.loss.kl_coeff.copy_(loss.kl_coeff)
        for whole, part in self._parameters():
            held = optimizer.state.get(whole, {})
            if held:
                self.optimizer.state[part] = {k: _like(v, part) for k, v in held.items()}
            if not is_first():
                whole.data = whole.new_empty(0)
        optimizer.state.clear()

    @torch.no_grad()
    def give(self, *, state: bool) -> None:
        """Copy the weights, and the optimizer's state if asked for, to the first process's whole.

        All processes call it.
        """
        networks, loss, optimizer = self._whole
        for whole, part in self._parameters():
            if not part.requires_grad:
                continue
            value = full(part)
            held = self.optimizer.state.get(part, {}) if state else {}
            held = {name: full(each).cpu() for name, each in held.items()}
            if is_first():
                whole.copy_(value)
                if held:
                    optimizer.state[whole] = held
        if is_first():
            loss.kl_coeff.copy_(self.loss.kl_coeff)
            for one, other in zip(_present(networks), _present(self._copies), strict=True):
                for buffer, learned in zip(one.buffers(), other.buffers(), strict=True):
                    buffer.copy_(learned)

    def _parameters(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter of the whole, and what stands for it in the copy."""
        for one, other in zip(_present(self._whole[0]), _present(self._copies), strict=True):
            yield from zip(one.parameters(), other.parameters(), strict=True)


@contextmanager
def naming_what_cannot_be_divided() -> Iterator[None]:
    """Around a forward pass.

    Raises:
        UserError: where the policy reads weights of a layer that it does not call.
    """
    try:
        yield
    except RuntimeError as error:
        if MIXED not in str(error):
            raise
        raise UserError(
            "ppo.shard=true: this policy uses weights of a layer without calling the layer, so "
            f"that they were not gathered. Leave out ppo.shard ({error})"
        ) from error


def _like(value: Tensor, part: Tensor) -> Tensor:
    """This process's part of an optimizer's state that all have; a step count stays whole."""
    if not value.ndim:
        return value
    value = value.to(part.device)
    if isinstance(part, DTensor):
        return distribute_tensor(value, part.device_mesh, part.placements, src_data_rank=None)
    return value


def _layers(networks: Networks) -> Iterator[nn.Module]:
    """The policy's outermost layers whose parameters stand nowhere else."""
    uses = Counter(
        parameter
        for network in _present(networks)
        for _, parameter in network.named_parameters(remove_duplicate=False)
    )

    def inside(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            held = list(child.parameters())
            called = isinstance(module, (nn.ModuleList, nn.Sequential))
            called &= not isinstance(child, (nn.ModuleList, nn.ModuleDict, TensorDictModuleBase))
            if called and held and all(uses[each] == 1 and each.ndim for each in held):
                yield child
            else:
                yield from inside(child)

    yield from inside(networks[0])


def _present(networks: Networks) -> list[nn.Module]:
    return [network for network in networks if network is not None]
