"""A prompt as a vision-language model reads it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """What a model is given, [B, L, ...].

    Attributes:
        embeddings: [B, L, hidden_size].
        mask: bool [B, L], False at padding.
        is_image: bool [B, L], True at image tokens.
        positions: position ids, [B, L] or [B, 3, L].
        deep: Qwen3-VL's picture features for its first layers.
        prefix: how many of them are padding, picture and sentence.
    """

    embeddings: Tensor
    mask: Tensor
    is_image: Tensor
    positions: Tensor
    deep: list[Tensor] | None
    prefix: int

    def extended(self, added: Tensor) -> Prompt:
        """The prompt with further embeddings [B, n, hidden_size] behind it.

        They continue the count of the largest position on every axis.
        """
        batch, count = added.shape[:2]
        begin = self.positions.flatten(1).amax(1) + 1
        ahead = begin.unsqueeze(-1) + torch.arange(count, device=begin.device)
        ahead = ahead.view(batch, *(1,) * (self.positions.ndim - 2), count)
        ahead = ahead.expand(*self.positions.shape[:-1], count)
        return Prompt(
            torch.cat([self.embeddings, added.to(self.embeddings.dtype)], 1),
            torch.cat([self.mask, self.mask.new_ones(batch, count)], 1),
            torch.cat([self.is_image, self.is_image.new_zeros(batch, count)], 1),
            torch.cat([self.positions, ahead], -1),
            self.deep,
            self.prefix,
        )
