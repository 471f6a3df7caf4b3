"""Transforms that write what a policy reads, wherever there is an observation."""

from __future__ import annotations

from abc import abstractmethod

from tensordict import TensorDictBase
from torchrl.envs.transforms import Transform


class ObservationWriter(Transform):
    """Writes entries from an observation, on an environment (reset and step) and on data.

    Data may hold a second observation, under ``"next"``; it counts where it has the first of the
    transform's ``in_keys``.
    """

    @abstractmethod
    def _write(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the entries of one observation."""

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        if next_tensordict.get("next", None) is not None:
            return self.forward(next_tensordict)
        return self._write(next_tensordict)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._write(tensordict_reset)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the entries at the root, and under ``"next"`` if there is an observation."""
        self._write(tensordict)
        following = tensordict.get("next", None)
        if following is not None and following.get(self.in_keys[0], None) is not None:
            self._write(following)
        return tensordict
