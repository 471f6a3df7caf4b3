"""Action tokens one after another, as OpenVLA decodes them: each sees those before it."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import (
    InteractionType,
    ProbabilisticTensorDictSequential,
    TensorDictModuleBase,
)
from tensordict.nn.probabilistic import interaction_type
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.optional import transformers_module
from rftf_torchrl.policies.heads.actors import draw_chunk
from rftf_torchrl.policies.heads.distributions import ChunkCategorical
from rftf_torchrl.policies.transformers_vla.vla import ActionTokenHead, QueryFeatures

DRAWN = "action_bins"


class DrawnCategorical(ChunkCategorical):
    r"""A chunk that was drawn token by token, with the categorical of each token given the others.

    .. math::
        \log \pi(a) = \sum_i \log \pi(a_i | a_{<i})

    A sample is the chunk that was drawn. Entropy and divergence are those of the conditionals along
    that chunk: over chunks of the policy they are right in the mean.

    Args:
        logits: float [*B, H, A, K], of each token given those before it.
        drawn: int64 [*B, H, A], the bins that they were given.
        low: lower end of the first bin.
        high: upper end of the last bin.
        executed: bool [*B, H]; None counts every action.

    Examples:
        >>> drawn = torch.tensor([[0, 3]])
        >>> DrawnCategorical(torch.zeros(1, 2, 4), drawn, low=-1.0, high=1.0).sample()
        tensor([[-0.7500,  0.7500]])
    """

    def __init__(
        self,
        logits: Tensor,
        drawn: Tensor,
        low: float = -1.0,
        high: float = 1.0,
        executed: Tensor | None = None,
    ) -> None:
        super().__init__(logits, low, high, executed)
        self.drawn = drawn

    @property
    def mode(self) -> Tensor:
        """The chunk that was drawn, [*B, H, A]: in deterministic mode, token by token the best."""
        return self.centres[self.drawn]

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Returns the chunk that was drawn, [*sample_shape, *B, H, A]."""
        return self.mode.expand(torch.Size(sample_shape) + self.mode.shape)


class AutoregressiveVLA(TensorDictModuleBase):
    """Draws a chunk token by token, or scores one that is there by one forward.

    Without a chunk in the data, the tokens are drawn with a cache of keys and values, and then
    scored in one forward, which is the one that the loss repeats: the ratio begins at exactly 1.

    Source: Kim et al. 2024, "OpenVLA", arXiv 2406.09246, section 3.

    Args:
        features: reads the observation; its network has no queries.
        head: the action tokens.
        low: lower end of the first bin.
        high: upper end of the last bin.
    """

    def __init__(
        self,
        features: QueryFeatures,
        head: ActionTokenHead,
        *,
        low: float,
        high: float,
    ) -> None:
        super().__init__()
        self.model = features
        self.head = head
        self.low, self.high = low, high
        self.in_keys = [*features.in_keys, keys.CHUNK]
        self.out_keys = [keys.LOGITS, DRAWN]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes ``"logits"`` float32 [*B, H, A, K] and ``"action_bins"`` int64 [*B, H, A].

        Raises:
            ValueError: if the chunk has another size.
        """
        batch = tensordict.batch_size
        prompt = self.model.prompt(tensordict)
        chunk = tensordict.get(keys.CHUNK, None)
        if chunk is None:
            bins = self._draw(prompt)
        else:
            size = self.head.shape[:2]
            if tuple(chunk.shape[len(batch) :]) != size:
                raise ValueError(
                    f"{keys.CHUNK!r} has shape {tuple(chunk.shape)}, expected it to end in "
                    f"(chunk_size, action_dim) = {size}."
                )
            share = (chunk.float() - self.low) / (self.high - self.low)
            bins = (share * self.head.bins).floor().long().clamp(0, self.head.bins - 1)
            bins = bins.reshape(len(prompt.mask), -1)
        given = self._embed(bins[:, :-1])
        network = self.model.network
        hidden = network.run(prompt.extended(given), last=bins.shape[1])
        logits = self.head(hidden, network.backbone)
        tensordict.set(keys.LOGITS, logits.reshape(*batch, *logits.shape[1:]))
        return tensordict.set(DRAWN, bins.reshape(*batch, *self.head.shape[:2]))

    def _embed(self, bins: Tensor) -> Tensor:
        return self.model.network.embed(self.head.tokens[bins])

    @torch.no_grad()
    def _draw(self, prompt: Any) -> Tensor:
        network = self.model.network
        config: Any = network.backbone.config
        cache = transformers_module("this policy").DynamicCache(config=config.get_text_config())
        greedy = interaction_type() not in (InteractionType.RANDOM, None)
        drawn: list[Tensor] = []
        count = self.head.shape[0] * self.head.shape[1]
        while len(drawn) < count:
            hidden = network.run(prompt, last=1, cache=cache)
            logits = self.head.logits(hidden, network.backbone)[:, 0]
            if greedy:
                bins = logits.argmax(-1, keepdim=True)
            else:
                bins = torch.multinomial(logits.softmax(-1), 1)
            drawn.append(bins)
            prompt = prompt.extended(self._embed(bins))
        return torch.cat(drawn, 1)


class AutoregressiveActor(ProbabilisticTensorDictSequential):
    """The policy of an :class:`AutoregressiveVLA`.

    Acting forgets a chunk that lies in the data, such as that of the step before; its distribution
    (``get_dist``) scores it.

    Args:
        network: draws and scores.
    """

    def __init__(self, network: AutoregressiveVLA) -> None:
        super().__init__(
            network,
            draw_chunk(
                DrawnCategorical,
                {"logits": keys.LOGITS, "drawn": DRAWN},
                {"low": network.low, "high": network.high},
            ),
        )

    def forward(self, tensordict: TensorDictBase, *args: Any, **kwargs: Any) -> TensorDictBase:
        """Draws a chunk and writes it with its log-probability."""
        if tensordict.get(keys.CHUNK, None) is not None:
            tensordict = tensordict.exclude(keys.CHUNK)
        return super().forward(tensordict, *args, **kwargs)
