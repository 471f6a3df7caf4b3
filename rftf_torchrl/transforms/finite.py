"""Stop at the first NaN or infinity, naming it, before it reaches an optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.transforms import Transform

from rftf_torchrl.keys import nested_keys


def check_finite_tensor(tensor: Tensor, name: NestedKey) -> None:
    """Raise :class:`FloatingPointError` if an element of ``tensor`` is not finite."""
    bad = ~torch.isfinite(tensor)
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        raise FloatingPointError(
            f"{name!r} has {int(bad.sum())} non-finite of {tensor.numel()} elements, the first at "
            f"index {index}: {tensor[index].item()}. Stop here: one such element makes every "
            "parameter NaN within one optimizer step. Look at what writes this key."
        )


@nested_keys
def check_finite(tensordict: TensorDictBase, keys: Sequence[NestedKey]) -> None:
    """Raise if an entry has a NaN or an infinity, naming the key, the count and the first index.

    Args:
        tensordict: any batch shape.
        keys: entries to look at, of any shape and dtype; integers are always finite.

    Raises:
        FloatingPointError: an entry is not finite.
        KeyError: an entry is missing.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> data = TensorDict({"next": {"reward": torch.tensor([[1.0], [float("nan")]])}}, [2])
        >>> check_finite(data, [("next", "reward")])
        Traceback (most recent call last):
        ...
        FloatingPointError: ('next', 'reward') has 1 non-finite of 2 elements, the first at index...
    """
    for key in keys:
        entry = tensordict.get(key, None)
        if entry is None:
            raise KeyError(f"{key!r} is missing, so it cannot be checked for non-finite elements.")
        check_finite_tensor(entry, key)


class FiniteCheck(Transform):
    """Stop an environment, a replay buffer or a collector at the first non-finite entry.

    TorchRL's :class:`~torchrl.envs.transforms.FiniteTensorDictCheck` looks at every leaf, image
    stacks included, and its error names neither key nor index; it has nothing to reuse here.

    Args:
        keys: entries as an environment's step returns them (``"reward"``, not
            ``("next", "reward")``). On an environment they are looked for in what the reset or
            the step returns; on data, at the root and under ``"next"``.

    Raises:
        FloatingPointError: on use, if an entry is not finite.
        KeyError: on use, if a step or the data has no such entry. A reset has no reward, so there
            a missing entry is fine.

    Example:
        >>> from torchrl.envs import TransformedEnv
        >>> from torchrl.envs.custom import ToyVLAEnv
        >>> env = TransformedEnv(ToyVLAEnv(), FiniteCheck(["reward", ("observation", "state")]))
        >>> env.rollout(2)["next", "reward"].shape
        torch.Size([2, 1])
    """

    @nested_keys
    def __init__(self, keys: Sequence[NestedKey]) -> None:
        super().__init__(in_keys=list(keys))
        if not self.in_keys:
            raise ValueError("keys is empty, so FiniteCheck would check nothing.")

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        if next_tensordict.get("next", None) is not None:
            return self.forward(next_tensordict)
        check_finite(next_tensordict, self.in_keys)
        return next_tensordict

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        present = [key for key in self.in_keys if tensordict_reset.get(key, None) is not None]
        check_finite(tensordict_reset, present)
        return tensordict_reset

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Check ``tensordict`` at the root and under ``"next"``, and return it unchanged."""
        for key in self.in_keys:
            places = [key, ("next", *((key,) if isinstance(key, str) else key))]
            present = [place for place in places if tensordict.get(place, None) is not None]
            check_finite(tensordict, present or [key])
        return tensordict
