"""What the frozen towers of a larger network make of an observation, kept for the update epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys

Compute = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class TowerFeatures(TensorDictModuleBase):
    """Where :func:`cache_features` asks a network for what its frozen towers give, and keeps it.

    For a tower that is one part of a network, whose weights keep their names: unlike
    :class:`FrozenFeatures` this module holds no weights and freezes none. Make it an attribute of
    the module that runs the network, add its ``out_keys`` to that module's ``in_keys``, and hand
    :meth:`cached` to the network, which computes what is not there. Rollouts have no cache.

    What is frozen is asked at each call of :func:`cache_features`, so adapters that are added to a
    tower later end its caching.

    Args:
        compute: maps the inputs, each [N, ...], to named features, each [N, ...], without those
            that a trained parameter has a part in: a method of the network.
        inputs: the key of each input by its name; they depend on the observation alone.
        names: all features that `compute` may return.
        cache_key: the entry of the data that holds the features by name.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from rftf_torchrl import cache_features
        >>> class Network(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.tower, self.head = nn.Linear(3, 8).requires_grad_(False), nn.Linear(8, 2)
        ...         self.kept = TowerFeatures(self.seen, {"state": "state"}, ["seen"])
        ...
        ...     def seen(self, inputs):
        ...         return {"seen": self.tower(inputs["state"])}
        >>> network = Network()
        >>> data = cache_features(network, TensorDict({"state": torch.zeros(5, 3)}, [5]))
        >>> data["cache", "seen"].shape, list(network.state_dict())[0]
        (torch.Size([5, 8]), 'tower.weight')
    """

    @nested_keys
    def __init__(
        self,
        compute: Compute,
        inputs: Mapping[str, NestedKey],
        names: Iterable[str],
        cache_key: NestedKey = keys.CACHE,
    ) -> None:
        super().__init__()
        self.compute = compute
        self.inputs = {name: unravel_key(key) for name, key in inputs.items()}
        self.features = {name: unravel_key((cache_key, name)) for name in names}
        self.in_keys = self.cache_inputs = list(self.inputs.values())
        self.out_keys = self.cached_keys = list(self.features.values())

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes what the frozen towers give."""
        batch = tensordict.batch_size
        inputs = {name: _flat(tensordict.get(key), batch) for name, key in self.inputs.items()}
        for name, value in self.compute(inputs).items():
            tensordict.set(self.features[name], value.reshape(*batch, *value.shape[1:]))
        return tensordict

    def to_cache(self, piece: TensorDictBase) -> TensorDictBase:
        """What the data are to hold of one piece of them."""
        return self(piece).select(*self.out_keys, strict=False)

    def of_rollout(self, data: TensorDictBase) -> TensorDictBase:
        """Nothing: a rollout has no features."""
        raise ValueError(
            "from_rollout=True, but this policy writes no features when it collects: compute them "
            "with from_rollout=False."
        )

    def cached(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Returns the features that the data hold, by name, each [N, ...] in a flat batch."""
        found = {name: tensordict.get(key, None) for name, key in self.features.items()}
        batch = tensordict.batch_size
        return {name: _flat(value, batch) for name, value in found.items() if value is not None}


def trains(module: nn.Module) -> bool:
    """Whether an optimizer may change what the module computes."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _flat(value: Tensor, batch: tuple[int, ...]) -> Tensor:
    return value.reshape(-1, *value.shape[len(batch) :])
