"""Keys that the losses have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives import LossModule

from rftf_torchrl.keys import as_key


def row_mask(loss: Any, tensordict: TensorDictBase) -> Tensor | None:
    """What a TorchRL loss counts by its ``loss_mask_key``, bool, flat; None for all."""
    keys = loss._loss_mask_keys() if isinstance(loss, LossModule) else ()
    found = [tensordict.get(key, None) for key in keys]
    masks = [mask.reshape(-1) for mask in found if mask is not None]
    return torch.stack(masks).all(0) if masks else None


class LossKeys:
    """Before a ``LossModule``: ``out_keys`` follow its settings; keys may be lists, as in YAML."""

    _AcceptedKeys: Any
    _selected: list[str] | None = None

    @property
    def out_keys(self) -> list[str]:
        """Names of the loss terms and diagnostics."""
        return self._written() if self._selected is None else self._selected

    @out_keys.setter
    def out_keys(self, names: Sequence[str]) -> None:
        self._selected = None if list(names) == self._written() else list(names)

    def set_keys(self, **names: Any) -> None:
        """Read and write other keys than the defaults; None brings a default back."""
        fields = self._AcceptedKeys.__dataclass_fields__
        several = {name for name, field in fields.items() if "list" in str(field.type)}
        super().set_keys(  # type: ignore[misc]  # of the loss
            **{name: key if name in several else as_key(key) for name, key in names.items()}
        )

    def _written(self) -> list[str]:
        """What forward writes."""
        raise NotImplementedError
