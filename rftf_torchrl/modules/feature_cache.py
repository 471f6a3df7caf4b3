"""A frozen part of a policy that runs once per batch of data instead of once per epoch."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torch import nn

from rftf_torchrl import keys

__all__ = ["FrozenFeatures", "cache_features"]


class FrozenFeatures(TensorDictModuleBase):
    """A frozen module that reads its outputs from the data where :func:`cache_features` put them.

    The module never trains: its parameters require no gradient and it stays in evaluation mode.
    Put it where the features come first in a policy, before what trains. Rollouts have no cache
    and compute the features.

    Args:
        module: the tower, a TensorDict module whose outputs depend on the observation alone.
        cache_key: the entry of the data that holds cached outputs, under the module's out_keys.

    Examples:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> tower = FrozenFeatures(TensorDictModule(nn.Linear(3, 8), ["state"], ["features"]))
        >>> data = cache_features(tower, TensorDict({"state": torch.zeros(5, 3)}, [5]))
        >>> data["cache", "features"].shape
        torch.Size([5, 8])
    """

    def __init__(self, module: TensorDictModuleBase, cache_key: NestedKey = keys.CACHE) -> None:
        super().__init__()
        self.module = module.requires_grad_(False).eval()
        self.cache_key = unravel_key(cache_key)
        self.out_keys = [unravel_key(key) for key in module.out_keys]
        self.cached_keys = [unravel_key((cache_key, key)) for key in self.out_keys]
        self.in_keys = [*module.in_keys, *self.cached_keys]

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Leaves the frozen module in evaluation mode."""
        super().train(mode)
        self.module.eval()
        return self

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes the features, from the cache if the data have one."""
        cached = [tensordict.get(key, None) for key in self.cached_keys]
        if any(value is None for value in cached):
            with torch.no_grad():
                return self.module(tensordict)
        for key, value in zip(self.out_keys, cached, strict=True):
            tensordict.set(key, value)
        return tensordict


@torch.no_grad()
def cache_features(
    policy: nn.Module,
    data: TensorDictBase,
    *,
    minibatch: int = 256,
    from_rollout: bool = False,
) -> TensorDictBase:
    """Runs the frozen towers of a policy once over a batch of data, for the update epochs.

    Args:
        policy: a module with one or more :class:`FrozenFeatures`.
        data: decisions with their inputs, any batch size; changed in place.
        minibatch: decisions per forward pass.
        from_rollout: take the features that the policy wrote when it collected the data instead of
            computing them: no forward pass, and the same rounding as in collection.

    Returns:
        The same data, with the outputs under the cache key.

    Raises:
        ValueError: if the policy has no frozen tower.
        KeyError: if the data of a rollout lack the features.
    """
    towers = [module for module in policy.modules() if isinstance(module, FrozenFeatures)]
    if not towers:
        raise ValueError(
            f"{type(policy).__name__} has no FrozenFeatures: wrap the frozen part of the policy."
        )
    for tower in towers:
        if from_rollout:
            _check_features(tower, data)
            found = data
        else:
            flat = data.select(*tower.module.in_keys).reshape(-1)
            pieces = [
                tower.module(piece.copy()).select(*tower.out_keys)
                for piece in flat.split(minibatch)
            ]
            found = torch.cat(pieces).reshape(data.batch_size)
        for key, cached in zip(tower.out_keys, tower.cached_keys, strict=True):
            data.set(cached, found.get(key))
    return data


def _check_features(tower: FrozenFeatures, data: TensorDictBase) -> None:
    missing = [key for key in tower.out_keys if data.get(key, None) is None]
    if missing:
        raise KeyError(
            f"the data lack {missing}, which the policy writes when it collects: keep them, or "
            "compute them with from_rollout=False."
        )
