"""Frozen parts of a policy that run once per batch of data instead of once per epoch."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torch import nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.tower_features import TowerFeatures


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

    @nested_keys
    def __init__(self, module: TensorDictModuleBase, cache_key: NestedKey = keys.CACHE) -> None:
        super().__init__()
        self.module = module.requires_grad_(False).eval()
        self.cache_key = unravel_key(cache_key)
        self.out_keys = [unravel_key(key) for key in module.out_keys]
        self.cached_keys = [unravel_key((cache_key, key)) for key in self.out_keys]
        self.cache_inputs = module.in_keys
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

    def to_cache(self, piece: TensorDictBase) -> TensorDictBase:
        """What the data are to hold of one piece of them."""
        return self._cached(self.module(piece))

    def of_rollout(self, data: TensorDictBase) -> TensorDictBase:
        """The same, from the features that the policy wrote when it collected the data."""
        missing = [key for key in self.out_keys if data.get(key, None) is None]
        if missing:
            raise KeyError(
                f"the data lack {missing}, which the policy writes when it collects: keep them, or "
                "compute them with from_rollout=False."
            )
        return self._cached(data)

    def _cached(self, found: TensorDictBase) -> TensorDictBase:
        cached = TensorDict(batch_size=found.batch_size, device=found.device)
        for key, cached_key in zip(self.out_keys, self.cached_keys, strict=True):
            cached.set(cached_key, found.get(key))
        return cached


@torch.no_grad()
def cache_features(
    policy: nn.Module,
    data: TensorDictBase,
    *,
    minibatch: int = 256,
    from_rollout: bool = False,
) -> TensorDictBase:
    """Runs the frozen towers of a policy once over a batch of data, for the update epochs.

    Of a policy whose towers all train (``trained="all"``, or adapters in them), nothing is cached.
    The loss's reference reads the same features: it has to have the same towers.

    Args:
        policy: a module with one or more :class:`FrozenFeatures` or :class:`TowerFeatures`, such
            as the policies of ``transformers_vla``, ``gr_mg`` and ``seer``.
        data: decisions with their inputs, any batch size; changed in place, ``"next"`` is not.
        minibatch: decisions per forward pass.
        from_rollout: take the features that the policy wrote when it collected the data instead of
            computing them: no forward pass, and the same rounding as in collection. For
            :class:`FrozenFeatures` only.

    Returns:
        The same data, with the outputs under the cache key.

    Raises:
        ValueError: if the policy has no frozen tower, or one that writes nothing in rollouts is
            asked for that.
        KeyError: if the data of a rollout lack the features.
    """
    towers = _towers(policy)
    if not towers:
        raise ValueError(
            f"{type(policy).__name__} has no FrozenFeatures: wrap the frozen part of the policy."
        )
    if not data.batch_size.numel():
        return data
    for tower in towers:
        if from_rollout:
            found = tower.of_rollout(data)
        else:
            flat = data.select(*tower.cache_inputs).reshape(-1)
            pieces = [tower.to_cache(piece.copy()) for piece in flat.split(minibatch)]
            found = torch.cat(pieces).reshape(data.batch_size)
        for key in tower.cached_keys:
            data.pop(key, None)
        data.update(found)
    return data


def cache_bytes(policy: nn.Module, data: TensorDictBase) -> int:
    """The memory that :func:`cache_features` would fill.

    One decision goes through the towers to find out.

    Args:
        policy: any module.
        data: decisions with their inputs, any batch size; not changed.

    Returns:
        Bytes for all decisions; 0 where there is nothing to cache.

    Examples:
        >>> from tensordict.nn import TensorDictModule
        >>> tower = FrozenFeatures(TensorDictModule(nn.Linear(3, 8), ["state"], ["features"]))
        >>> cache_bytes(tower, TensorDict({"state": torch.zeros(5, 3)}, [5]))
        160
    """
    towers, decisions = _towers(policy), data.batch_size.numel()
    if not towers or not decisions:
        return 0
    one = data[(0,) * data.batch_dims].unsqueeze(0)
    one = one.select(*(key for tower in towers for key in tower.cache_inputs))
    found = cache_features(policy, one)
    cached = [found.get(key, None) for tower in towers for key in tower.cached_keys]
    held = sum(value.numel() * value.element_size() for value in cached if value is not None)
    return int(decisions * held)


def _towers(policy: nn.Module) -> list[FrozenFeatures | TowerFeatures]:
    kinds = (FrozenFeatures, TowerFeatures)
    return [module for module in policy.modules() if isinstance(module, kinds)]
