"""One piece of shared memory for all weights of a policy."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

_ALIGNMENT = 64


def share_weights(module: Module) -> Module:
    """Moves all parameters and buffers of a module on the CPU into one piece of shared memory.

    ``module.share_memory()`` takes one piece, and one file descriptor, for each; a new process can
    be given no more than about 250 of them, which large policies exceed.

    Args:
        module: changed in place.

    Returns:
        The module.
    """
    tensors = [*module.parameters(), *module.buffers()]
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    room = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
    memory = torch.empty(sum(room), dtype=torch.uint8).share_memory_()
    for tensor, size, piece in zip(tensors, sizes, memory.split(room), strict=True):
        view = piece[:size].view(tensor.dtype).view(tensor.shape)
        view.copy_(tensor.detach())
        tensor.data = view
    return module
