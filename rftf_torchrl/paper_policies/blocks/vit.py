"""Vision transformer blocks under timm's parameter names, and a masked autoencoder's encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sincos_2d(grid: int, dim: int) -> Tensor:
    """Sine and cosine of column, then of row, of the cells of a square grid, row by row.

    Args:
        grid: cells along an edge.
        dim: features of a position, a multiple of 4.

    Returns:
        float32 [grid * grid, dim].
    """
    frequency = 10000.0 ** (-4 * torch.arange(dim // 4, dtype=torch.float64) / dim)
    cell = torch.arange(grid * grid, dtype=torch.float64)
    parts = []
    for position in (cell % grid, cell.div(grid, rounding_mode="floor")):
        angle = position[:, None] * frequency
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1).float()


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of an image encoder; the defaults are ViT-B/16.

    Attributes:
        image_size: edge of the image in pixels.
        patch_size: edge of a patch in pixels.
        dim: features of a token.
        depth: number of blocks.
        heads: attention heads.
    """

    image_size: int = 224
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12

    @property
    def grid(self) -> int:
        """Patches along an edge."""
        return self.image_size // self.patch_size


class Attention(nn.Module):
    """Self-attention of every token to every token."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [N, T, dim] to tokens of the same shape."""
        n, length, dim = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = self.proj(mixed.transpose(1, 2).reshape(n, length, dim))
        return x


class MLP(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps each token by itself."""
        x = self.fc2(F.gelu(self.fc1(x)))
        return x


class ViTBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [N, T, dim] to tokens of the same shape."""
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class PatchEmbedding(nn.Module):
    """Linear projection of patches."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(3, config.dim, kernel_size=size, stride=size)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images [N, 3, S, S] to tokens [N, patches, dim], row by row."""
        patches: Tensor = self.proj(image)
        return patches.flatten(2).transpose(1, 2)


class MAEEncoder(nn.Module):
    """The encoder of a masked autoencoder, with no patch masked.

    Source: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.dim))
        self.patch_embed = PatchEmbedding(config)
        self.blocks = nn.Sequential(
            *(ViTBlock(config.dim, config.heads, eps=1e-6) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images [N, 3, S, S] to their class token [N, dim] and patches [N, patches, dim]."""
        patches = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(len(image), -1, -1), patches), dim=1)
        x = self.norm(self.blocks(x + self.pos_embed))
        return x[:, 0], x[:, 1:]

    def tokens_of(self, image: Tensor) -> Tensor:
        """Maps images [..., 3, S, S] to class token and patches, [..., 1 + patches, dim]."""
        cls, patches = self(image.reshape(-1, *image.shape[-3:]))
        return torch.unflatten(torch.cat((cls[:, None], patches), dim=1), 0, image.shape[:-3])
