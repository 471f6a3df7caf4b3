"""GR-MG's and Seer's networks, reading what an environment writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.tower_features import trains
from rftf_torchrl.paper_policies.blocks.inputs import robot_pose


class WindowReader(nn.Module):
    """Prepares windows of observations, batch [*B], for a network, batch [N].

    Args:
        network: with ``config``, ``encode``, and its ``towers``: image encoder and text tower.
        prepare: from images, uint8 [N, 3, H, W], and an edge to what the encoder takes.
        dtype_of: the name of the layer that says the network's dtype.
    """

    def __init__(
        self, network: Any, prepare: Callable[[Tensor, int], Tensor], dtype_of: str
    ) -> None:
        super().__init__()
        self.network = network
        self.prepare = prepare
        self.dtype_of = dtype_of

    @property
    def dtype(self) -> torch.dtype:
        """The network's."""
        layer: nn.Linear = getattr(self.network, self.dtype_of)
        return layer.weight.dtype

    def observed(
        self,
        pictures: Sequence[Tensor],
        state: Tensor,
        valid: Tensor,
        tokens: Tensor,
        kept: Sequence[Tensor | None],
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
        """Images, pose, open gripper, validity and text; batch [N].

        Entries of `kept` are images and text as :meth:`frozen_features` gives them; None where
        they are not known.
        """
        batch = valid.ndim - 1
        known = [None if each is None else _flat(each, batch) for each in kept]
        known = known or [None] * (len(pictures) + 1)
        pose, opened = robot_pose(_flat(state, batch), self.network.config.arm_dim)
        seen = [
            self._picture(_flat(image, batch)) if each is None else each
            for image, each in zip(pictures, known, strict=False)
        ]
        text = known[-1]
        if text is None:
            text = self.network.towers[1](_flat(tokens, batch))
        return seen, pose, opened, _flat(valid, batch), text.to(self.dtype)

    def frozen_features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The frozen encoders' outputs for images and instruction, batch [N]."""
        encoder, text_tower = self.network.towers
        found = {}
        if not trains(encoder):
            pictures = {name: value for name, value in inputs.items() if name != "tokens"}
            found = {n: self.network.encode(self._picture(each)) for n, each in pictures.items()}
        if not trains(text_tower):
            found["text"] = text_tower(inputs["tokens"])
        return found

    def _picture(self, image: Tensor) -> Tensor:
        flat = image.reshape(-1, *image.shape[-3:])
        pictures = self.prepare(flat, self.network.config.image.image_size)
        return torch.unflatten(pictures, 0, image.shape[:-3]).to(self.dtype)


def at_last(window: Tensor, valid: Tensor, shape: torch.Size) -> Tensor:
    """Entries [*shape, ...], float32, of windows [N, L, ...] at the last valid observation."""
    last = window[torch.arange(len(valid), device=valid.device), valid.sum(-1) - 1].float()
    return last.reshape((*shape, *last.shape[1:]))


def _flat(entry: Tensor, batch: int) -> Tensor:
    return entry.reshape(-1, *entry.shape[batch:])
