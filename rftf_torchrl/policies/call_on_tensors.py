"""Call a TensorDict module on tensors by key."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
from tensordict import TensorDict, TensorDictBase, is_leaf_nontensor
from tensordict.nn import (
    InteractionType,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictModuleBase,
    TensorDictSequential,
)
from tensordict.nn.probabilistic import interaction_type
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl.policies.heads.distributions import ChunkDistribution

Tensors: TypeAlias = dict[NestedKey, Any]

# Attributes of TensorDict's modules, as they are unless somebody asked for something special.
_USUAL: dict[str, Any] = {
    "_kwargs": None,
    "method": None,
    "strict": False,
    "partial_tolerant": False,
    "num_samples": None,
    "return_log_prob": True,
    "_requires_sample": True,
    "_generator": None,
    "_generator_key": None,
    "_forward_hooks": {},
    "_forward_pre_hooks": {},
    "_compiled_call_impl": None,
    "forward": None,
}


def leaves(data: TensorDictBase) -> Tensors:
    """The entries of a TensorDict by key."""
    return dict(data.items(True, True, is_leaf=is_leaf_nontensor))


def call_on_tensors(module: TensorDictModuleBase, data: Tensors, batch: torch.Size) -> None:
    """Adds to the data what a module writes, bit for bit what it writes to a TensorDict.

    For one observation, TensorDict's part of a call takes as long as a small network. So in a
    chain of TensorDict's own modules each is given its tensors; other modules get a TensorDict.

    Args:
        module: acts in TensorDict's present interaction type.
        data: leaves by key; changed in place.
        batch: the batch size.
    """
    kind = type(module) if _is_usual(module) else None
    if kind in (TensorDictSequential, ProbabilisticTensorDictSequential):
        for part in cast(TensorDictSequential, module).module:
            call_on_tensors(part, data, batch)
        return
    written = None
    if kind is TensorDictModule:
        written = _called(cast(TensorDictModule, module), data)
    elif kind is ProbabilisticTensorDictModule:
        written = _drawn(cast(ProbabilisticTensorDictModule, module), data)
    if written is None:
        device = next((each.device for each in data.values() if isinstance(each, Tensor)), None)
        written = leaves(module(TensorDict(data, batch, device=device)))
    data.update(written)


def _is_usual(module: nn.Module) -> bool:
    return _USUAL.items() <= {**_USUAL, **vars(module)}.items()


def _called(module: TensorDictModule, data: Tensors) -> Tensors | None:
    inputs = [data.get(key) for key in module.in_keys]
    if not all(isinstance(each, Tensor) for each in inputs):
        return None
    out = module.module(*inputs)
    outputs = out if isinstance(out, tuple) else (out,)
    if len(outputs) == len(module.out_keys) and all(isinstance(each, Tensor) for each in outputs):
        return dict(zip(module.out_keys, outputs, strict=True))
    return leaves(TensorDictModule(lambda: out, in_keys=[], out_keys=module.out_keys)(TensorDict()))


def _drawn(module: ProbabilisticTensorDictModule, data: Tensors) -> Tensors | None:
    kind, how = module.distribution_class, interaction_type()
    if not (isinstance(kind, type) and issubclass(kind, ChunkDistribution)):
        return None
    distribution = module.get_dist(cast(Any, data))
    if how is InteractionType.DETERMINISTIC:
        chunk = distribution.mode
    elif how is InteractionType.RANDOM:
        chunk = distribution.rsample() if distribution.has_rsample else distribution.sample()
    else:
        return None
    return dict(zip(module.out_keys, (chunk, distribution.log_prob(chunk)), strict=True))
