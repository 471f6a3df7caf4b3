"""Networks of the flow head: the velocity of a chunk, and a learned noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ChunkVelocity(nn.Module):
    r"""Predicts the velocity of a noisy chunk from features.

    A residual perceptron over the flattened chunk, sines and cosines of the time, and features.

    Args:
        features: size F of the features.
        shape: chunk size and action dimension, (H, A).
        width: hidden size.
        depth: residual blocks.
        frequencies: frequencies :math:`\pi 2^i / 2` of the time's sines and cosines.

    Examples:
        >>> velocity = ChunkVelocity(8, (4, 2), width=16)
        >>> velocity(torch.zeros(5, 4, 2), torch.zeros(5), torch.zeros(5, 8)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        features: int,
        shape: tuple[int, int],
        *,
        width: int = 256,
        depth: int = 2,
        frequencies: int = 4,
    ) -> None:
        super().__init__()
        self.shape = (int(shape[0]), int(shape[1]))
        size = self.shape[0] * self.shape[1]
        self.frequencies = frequencies
        self.inner = nn.Linear(size + 2 * frequencies + features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.outer = nn.Sequential(nn.SiLU(), nn.Linear(width, size))

    def forward(self, x: Tensor, tau: Tensor, features: Tensor) -> Tensor:
        """Returns the velocity [*B, H, A] at x [*B, H, A], time tau [*B], features [*B, F]."""
        powers = 2.0 ** torch.arange(self.frequencies, device=x.device)
        angles = tau.unsqueeze(-1) * powers * (math.pi / 2)
        dtype = self.inner.weight.dtype
        inputs = [x.flatten(-2), angles.sin(), angles.cos(), features]
        hidden = self.inner(torch.cat([each.to(dtype) for each in inputs], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return torch.unflatten(self.outer(hidden), -1, self.shape)


class FlowNoise(nn.Module):
    r"""The learned standard deviation of flow-noise, per step, action and dimension.

    .. math::
        \sigma_k = \mathrm{low} + (\mathrm{high} - \mathrm{low}) \cdot
            \mathrm{sigmoid}(W_k f + b_k)

    W starts at zero, so every state starts with ``init``.

    Source: Zhang et al. 2025, "ReinFlow", arXiv 2505.22094 (bounded noise network).

    Args:
        features: size F of the features.
        shape: chunk size and action dimension, (H, A).
        steps: denoising steps, K.
        init: initial standard deviation, strictly inside the bounds.
        bounds: (low, high), both positive.

    Raises:
        ValueError: if the bounds or the initial value do not fit.

    Examples:
        >>> FlowNoise(8, (1, 2), 4, init=0.1)(3, torch.randn(8))
        tensor([[0.1000, 0.1000]], grad_fn=<ViewBackward0>)
    """

    def __init__(
        self,
        features: int,
        shape: tuple[int, int],
        steps: int,
        *,
        init: float = 0.1,
        bounds: tuple[float, float] = (0.02, 0.3),
    ) -> None:
        super().__init__()
        low, high = bounds
        if not 0 < low < init < high:
            raise ValueError(
                f"init must lie strictly inside positive bounds, got {init} and {tuple(bounds)}."
            )
        self.low, self.high = float(low), float(high)
        self.shape = (int(shape[0]), int(shape[1]))
        fraction = (init - low) / (high - low)
        size = self.shape[0] * self.shape[1]
        self.weight = nn.Parameter(torch.zeros(steps, size, features))
        self.bias = nn.Parameter(torch.full((steps, size), math.log(fraction / (1 - fraction))))

    def forward(self, step: int, features: Tensor) -> Tensor:
        """Returns the standard deviation [*B, H, A] of the step, from features [*B, F]."""
        weight = self.weight[step]
        raw = nn.functional.linear(features.to(weight.dtype), weight, self.bias[step]).float()
        scale = self.low + (self.high - self.low) * raw.sigmoid()
        return torch.unflatten(scale, -1, self.shape)
