"""Tensors as plain bytes: pickled, a tensor takes a file descriptor, and an array 15 us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from rftf_torchrl.policies.call_on_tensors import Tensors

Packed: TypeAlias = dict[Any, tuple[bytearray, str, tuple[int, ...]]]
"""Bytes, NumPy's code of the type, and shape, by key."""

# NumPy has no bfloat16; its bits travel as another type of the same size, which no policy has.
_BITS = np.dtype("V2").str


def pack(data: Tensors) -> Packed:
    """The tensors among the leaves; nothing else is kept."""
    return {key: _bytes(each) for key, each in data.items() if isinstance(each, torch.Tensor)}


def _bytes(tensor: torch.Tensor) -> tuple[bytearray, str, tuple[int, ...]]:
    half = tensor.dtype == torch.bfloat16
    tensor = tensor.contiguous()  # NumPy copies other layouts element by element
    array = tensor.view(torch.int16).numpy() if half else tensor.numpy()
    return bytearray(array.data), _BITS if half else array.dtype.str, array.shape


def _tensor(data: bytearray, kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    if kind == _BITS:
        return _tensor(data, "i2", shape).view(torch.bfloat16)
    return torch.from_numpy(np.ndarray(shape, kind, data))


def unpack(packed: Mapping[Any, tuple[bytearray, str, tuple[int, ...]]]) -> Tensors:
    """Tensors again."""
    return {key: _tensor(*each) for key, each in packed.items()}


def unpack_stacked(items: Sequence[Packed]) -> TensorDictBase:
    """One TensorDict of several, with a batch dimension.

    Torch allocates it: the last bits of a product depend on how its memory is aligned.
    """
    columns = {}
    for key, (_, kind, shape) in items[0].items():
        if all(item[key][1:] == (kind, shape) for item in items):
            together = bytearray().join(item[key][0] for item in items)
            columns[key] = _tensor(together, kind, (len(items), *shape)).clone()
        else:  # torch finds the type, or refuses the shapes
            columns[key] = torch.stack([_tensor(*item[key]) for item in items])
    return TensorDict(columns, [len(items)])


def rows(packed: Packed, count: int) -> list[Packed]:
    """Several of one, by its first dimension.

    Raises:
        ValueError: an entry has another first dimension.
    """
    taken: list[Packed] = [{} for _ in range(count)]
    for key, (data, kind, shape) in packed.items():
        if shape[:1] != (count,):
            raise ValueError(
                f"the policy writes {key!r} of shape {shape} for {count} decisions: its first "
                "dimension must be that of the batch."
            )
        size = len(data) // count
        for row, each in enumerate(taken):
            each[key] = data[row * size : (row + 1) * size], kind, shape[1:]
    return taken
