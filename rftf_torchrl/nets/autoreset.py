"""Resets of some environments of a batch inside a step (native auto-reset)."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs.transforms import Transform


def reset_where_asked(
    transform: Transform, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
) -> TensorDictBase:
    """What a transform's ``_reset`` writes where ``"_reset"`` is set, what was there elsewhere."""
    before = {key: tensordict.get(key) for key in transform.out_keys}
    reset = tensordict.get("_reset").reshape(*tensordict.batch_size, -1).any(-1)
    fresh: TensorDictBase = transform._reset(tensordict, tensordict_reset)
    for key, kept in before.items():
        fresh.set(key, torch.where(like(reset, kept), fresh.get(key), kept))
    return fresh


def like(flag: Tensor, entry: Tensor) -> Tensor:
    """A flag [*B] with as many dimensions as an entry [*B, ...]."""
    return flag.reshape(*flag.shape, *[1] * (entry.ndim - flag.ndim))
