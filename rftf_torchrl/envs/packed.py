"""Tensors and text as plain bytes: pickled, a tensor takes a file descriptor, an array 15 us."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase

from rftf_torchrl.policies.call_on_tensors import Tensors

Packed: TypeAlias = dict[Any, tuple[bytearray, str, tuple[int, ...]]]
"""Bytes, NumPy's code of the type or ``_TEXT``, and shape, by key."""

_TEXT = "text"

# NumPy has no bfloat16; its bits travel as another type of the same size, which no policy has.
_BITS = np.dtype("V2").str


def pack(data: Tensors) -> Packed:
    """Leaves as bytes: tensors, and text.

    Raises:
        TypeError: for a leaf that is neither.
    """
    return {
        key: _bytes(each) if isinstance(each, torch.Tensor) else _text(key, each)
        for key, each in data.items()
    }


def _text(key: Any, leaf: Any) -> tuple[bytearray, str, tuple[int, ...]]:
    try:
        return bytearray(json.dumps(leaf.tolist()).encode()), _TEXT, tuple(leaf.batch_size)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"{key!r} holds {leaf!r}, which can't be sent to another process: expected a tensor or "
            "text"
        ) from error


def _text_again(text: Any, shape: tuple[int, ...]) -> Any:
    if not shape:
        return NonTensorData(text)
    return torch.stack([_text_again(each, shape[1:]) for each in text])


def _bytes(tensor: torch.Tensor) -> tuple[bytearray, str, tuple[int, ...]]:
    half = tensor.dtype == torch.bfloat16
    tensor = tensor.contiguous()  # NumPy copies other layouts element by element
    array = tensor.view(torch.int16).numpy() if half else tensor.numpy()
    return bytearray(array.data), _BITS if half else array.dtype.str, array.shape


def _leaf(data: bytearray, kind: str, shape: tuple[int, ...]) -> Any:
    if kind == _TEXT:
        return _text_again(json.loads(data), shape)
    if kind == _BITS:
        return _leaf(data, "i2", shape).view(torch.bfloat16)
    return torch.from_numpy(np.ndarray(shape, kind, data))


def unpack(packed: Mapping[Any, tuple[bytearray, str, tuple[int, ...]]]) -> Tensors:
    """Leaves again."""
    return {key: _leaf(*each) for key, each in packed.items()}


def unpack_stacked(items: Sequence[Packed]) -> TensorDictBase:
    """One TensorDict of several, with a batch dimension.

    Torch allocates it: the last bits of a product depend on how its memory is aligned.
    """
    columns = {}
    for key, (_, kind, shape) in items[0].items():
        if kind != _TEXT and all(item[key][1:] == (kind, shape) for item in items):
            together = bytearray().join(item[key][0] for item in items)
            columns[key] = _leaf(together, kind, (len(items), *shape)).clone()
        else:  # torch finds the type, or refuses the shapes
            columns[key] = torch.stack([_leaf(*item[key]) for item in items])
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
        texts = json.loads(data) if kind == _TEXT else []
        for row, each in enumerate(taken):
            part = data[row * size : (row + 1) * size]
            if texts:
                part = bytearray(json.dumps(texts[row]).encode())
            each[key] = part, kind, shape[1:]
    return taken
