"""The weights with which a policy acted, beside those that it has by now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ActedWeights:
    """Keeps a policy's weights, and gives them back to it for a while.

    Args:
        policy: its buffers are kept, and its parameters that require gradients.
    """

    def __init__(self, policy: nn.Module) -> None:
        self._policy = policy
        self.keep()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside the ``with`` block the policy has the weights that were kept."""
        present = self._present()
        self._write(self._kept)
        try:
            yield
        finally:
            self._write(present)

    def keep(self) -> None:
        """Keep the present weights, in place of those kept before."""
        self._kept = self._present()

    def state_dict(self) -> dict[str, Tensor]:
        """The weights that are kept, by name."""
        return dict(self._kept)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Keep these weights."""
        self._kept = dict(state)

    def _live(self) -> dict[str, Tensor]:
        trained = [(n, p) for n, p in self._policy.named_parameters() if p.requires_grad]
        return dict([*trained, *self._policy.named_buffers()])

    def _present(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._live().items()}

    @torch.no_grad()
    def _write(self, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in self._live().items():
            tensor.copy_(weights[name])
