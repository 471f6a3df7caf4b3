"""Tensors as plain arrays for messages, where each tensor would take a file descriptor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from rftf_torchrl.policies.call_on_tensors import Tensors

Packed = dict[Any, np.ndarray]

# NumPy has no bfloat16; its bits travel as another type of the same size, which no policy has.
_BITS = np.dtype("V2")


def pack(data: Tensors) -> Packed:
    """The tensors among the leaves; nothing else is kept."""
    return {key: _array(each) for key, each in data.items() if isinstance(each, torch.Tensor)}


def _array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_BITS)
    return tensor.numpy()


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == _BITS:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def unpack(packed: Mapping[Any, np.ndarray]) -> Tensors:
    """Tensors again."""
    return {key: _tensor(array) for key, array in packed.items()}


def unpack_stacked(items: Sequence[Packed]) -> TensorDictBase:
    """One TensorDict of several, with a batch dimension.

    Torch allocates it: the last bits of a product depend on how its memory is aligned.
    """
    columns = {key: torch.stack([_tensor(item[key]) for item in items]) for key in items[0]}
    return TensorDict(columns).auto_batch_size_(1)


def rows(packed: Packed, count: int) -> list[Packed]:
    """Several of one, by its first dimension."""
    return [{key: array[row, ...] for key, array in packed.items()} for row in range(count)]
