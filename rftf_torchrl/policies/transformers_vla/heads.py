"""From hidden states at the query tokens to the logits of action tokens, or to a mean chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.finite_output import check_finite_output


class ActionTokenHead(nn.Module):
    r"""Logits of K action tokens: rows of the model's own output layer.

    .. math::
        \ell_k = \frac{1}{T} \, w_{\mathrm{token}(k)}^\top h

    The first token of the list is the lowest bin. The layer is looked up in the model at every
    call, so that what is trained is the model's own weight.

    Source: Brohan et al. 2023, "RT-2", arXiv 2307.15818, section 3.2; Kim et al. 2024, "OpenVLA",
    arXiv 2406.09246, section 3.2.

    Args:
        tokens: ids of the action tokens, from the lowest to the highest bin.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        temperature: T, above 0; it belongs to the policy, in rollout and loss alike.

    Raises:
        ValueError: if the temperature or the number of tokens does not fit.

    Examples:
        >>> ActionTokenHead([5, 4, 3], chunk_size=2, action_dim=7).bins
        3
    """

    tokens: Tensor

    def __init__(
        self, tokens: Sequence[int], *, chunk_size: int, action_dim: int, temperature: float = 1.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        if len(tokens) < 2 or len(set(tokens)) != len(tokens):
            raise ValueError(f"expected at least 2 different action tokens, got {list(tokens)}.")
        self.register_buffer("tokens", torch.tensor(list(tokens)), persistent=False)
        self.bins = len(tokens)
        self.shape = (chunk_size, action_dim, self.bins)
        self.temperature = float(temperature)

    def forward(self, hidden: Tensor, backbone: Any) -> Tensor:
        """Computes the logits.

        Args:
            hidden: [B, H * A, features].
            backbone: the model.

        Returns:
            float32 [B, H, A, K].

        Raises:
            FloatingPointError: if a logit is NaN or infinite.
        """
        return torch.unflatten(self.logits(hidden, backbone), 1, self.shape[:2])

    def logits(self, hidden: Tensor, backbone: Any) -> Tensor:
        """Maps any hidden states [B, n, features] to logits, float32 [B, n, K]."""
        layer = backbone.get_output_embeddings()
        rows = layer.weight[self.tokens]
        bias = getattr(layer, "bias", None)
        logits = nn.functional.linear(hidden, rows, None if bias is None else bias[self.tokens])
        logits = logits.float()
        cap = getattr(backbone.config.get_text_config(), "final_logit_softcapping", None)
        if cap:
            logits = cap * torch.tanh(logits / cap)
        return check_finite_output(logits / self.temperature, "logits")


class ChunkHead(nn.Module):
    """A mean action from each query: one linear layer.

    Args:
        hidden_size: features of a hidden state.
        action_dim: size of an action, A.

    Examples:
        >>> ChunkHead(8, action_dim=7)(torch.zeros(2, 4, 8)).shape
        torch.Size([2, 4, 7])
    """

    def __init__(self, hidden_size: int, *, action_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(hidden_size, action_dim)
        with torch.no_grad():
            self.mean.weight.mul_(0.1)
            self.mean.bias.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps hidden states [B, H, features] to means, float32 [B, H, A]."""
        mean: Tensor = self.mean(hidden.to(self.mean.weight.dtype))
        return mean.float()
