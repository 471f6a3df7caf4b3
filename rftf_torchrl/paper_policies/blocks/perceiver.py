"""The resampler that turns the patches of an image into a few tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rftf_torchrl.paper_policies.blocks.config import NetworkConfig


class PerceiverAttention(nn.Module):
    """Attention of latents to features and latents."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.norm_media = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Maps latents [N, n, dim], given features [N, T, dim], to latents of the same shape."""
        latents = self.norm_latents(latents)
        context = torch.cat((self.norm_media(features), latents), dim=1)
        q = self._split(self.to_q(latents))
        k, v = map(self._split, self.to_kv(context).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)


class PerceiverLayer(nn.ModuleList):
    """Attention, then two linear layers, each added to the latents."""

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Maps latents [N, n, dim], given features [N, T, dim], to latents of the same shape."""
        latents = latents + self[0](features, latents)
        latents = latents + self[1](latents)
        return latents


class PerceiverResampler(nn.Module):
    """A fixed number of tokens from any number of features, whatever their order.

    Source: Alayrac et al. 2022, "Flamingo", arXiv 2204.14198, figure 5.

    Args:
        config: of the network; the entries with ``resampler_`` in front.
        media_embedding: whether a learned vector is added to the features.
    """

    def __init__(self, config: NetworkConfig, *, media_embedding: bool) -> None:
        super().__init__()
        dim, heads, head_dim = config.image.dim, config.resampler_heads, config.resampler_head_dim
        self.latents = nn.Parameter(torch.randn(config.resampler_latents, dim))
        self.media_pos_emb = nn.Parameter(torch.randn(1, 1, dim)) if media_embedding else None
        self.layers = nn.ModuleList(
            PerceiverLayer((PerceiverAttention(dim, heads, head_dim), _feed_forward(dim)))
            for _ in range(config.resampler_depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features [N, T, dim] to tokens [N, latents, dim]."""
        if self.media_pos_emb is not None:
            features = features + self.media_pos_emb
        latents: Tensor = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(features, latents)
        latents = self.norm(latents)
        return latents


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 4 * dim, bias=False),
        nn.GELU(),
        nn.Linear(4 * dim, dim, bias=False),
    )
