"""Distributions over action chunks whose probabilities count executed actions only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints, register_kl


class ChunkDistribution(Distribution):
    """What the distributions of an action chunk have in common."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.independent(constraints.real, 2)

    @property
    def deterministic_sample(self) -> Tensor:
        """What TorchRL uses in deterministic mode: the mode, [*B, H, A]."""
        return self.mode


class ChunkNormal(ChunkDistribution):
    r"""Diagonal normal over an action chunk.

    .. math::
        \log \pi(a) = \sum_{h : \mathrm{executed}_h} \sum_d \log N(a_{hd}; \mu_{hd}, \sigma_{hd})

    Actions of a chunk that were never executed (the episode ended inside it) had no effect, so
    they enter neither log-probability, entropy nor divergence. All three are float32.

    Args:
        loc: mean, float [*B, H, A].
        scale: standard deviation, float [*B, H, A], positive.
        executed: bool [*B, H]; None counts every action.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        >>> executed = torch.tensor([True, False])
        >>> dist = ChunkNormal(torch.zeros(2, 3), torch.ones(2, 3), executed)
        >>> round(float(dist.log_prob(torch.zeros(2, 3))), 4)
        -2.7568
    """

    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, executed: Tensor | None = None) -> None:
        if loc.shape != scale.shape:
            raise ValueError(
                f"loc and scale must have one shape, got {tuple(loc.shape)} and "
                f"{tuple(scale.shape)}."
            )
        self.loc = loc.float()
        self.scale = scale.float()
        self.executed = checked_executed(executed, loc.shape[:-1])
        super().__init__(loc.shape[:-2], loc.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The centre of the distribution, [*B, H, A]."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The most probable chunk, [*B, H, A]."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance, [*B, H, A]."""
        return self.scale.square()

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Samples chunks [*sample_shape, *B, H, A] with gradients to loc and scale."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-probability [*B] of chunks [*B, H, A]."""
        each = normal_log_prob(value.float(), self.loc, self.scale)
        return sum_executed(each.sum(-1), self.executed)

    def entropy(self) -> Tensor:
        """Returns the entropy [*B]."""
        each = self.scale.log() + 0.5 * (1 + math.log(2 * math.pi))
        return sum_executed(each.sum(-1), self.executed)


class ChunkCategorical(ChunkDistribution):
    r"""Independent categorical per action dimension, over the centres of K uniform bins.

    Bin k of [low, high] has the centre ``low + (k + 1/2) (high - low) / K``, as in
    :class:`torchrl.data.vla.UniformActionTokenizer`. Samples are bin centres, so this
    distribution and :class:`ChunkNormal` fill the same action key. To let the outermost centres
    be -1 and 1, widen the range: ``low, high = -K / (K - 1), K / (K - 1)``.

    Args:
        logits: float [*B, H, A, K].
        low: lower end of the first bin.
        high: upper end of the last bin.
        executed: bool [*B, H]; None counts every action.

    Raises:
        ValueError: if the shapes or the range do not fit.

    Examples:
        >>> dist = ChunkCategorical(torch.zeros(2, 3, 4), low=-1.0, high=1.0)
        >>> dist.centres
        tensor([-0.7500, -0.2500,  0.2500,  0.7500])
        >>> round(float(dist.log_prob(dist.sample())), 4)  # 6 * log(1/4)
        -8.3178
    """

    def __init__(
        self,
        logits: Tensor,
        low: float = -1.0,
        high: float = 1.0,
        executed: Tensor | None = None,
    ) -> None:
        if not high > low:
            raise ValueError(f"high must be above low, got low={low} and high={high}.")
        self.bins = Categorical(logits=logits.float(), validate_args=False)
        self.low = float(low)
        self.high = float(high)
        self.executed = checked_executed(executed, logits.shape[:-2])
        super().__init__(logits.shape[:-3], logits.shape[-3:-1], validate_args=False)

    @property
    def logits(self) -> Tensor:
        """Normalised log-probabilities of the bins, [*B, H, A, K]."""
        return self.bins.logits

    @property
    def centres(self) -> Tensor:
        """Centres of the bins, [K]."""
        count = self.logits.shape[-1]
        index = torch.arange(count, dtype=torch.float32, device=self.logits.device)
        return self.low + (index + 0.5) * ((self.high - self.low) / count)

    @property
    def mean(self) -> Tensor:
        """The mean action, [*B, H, A]."""
        return (self.bins.probs * self.centres).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The most probable chunk, [*B, H, A]."""
        return self.centres[self.logits.argmax(-1)]

    def tokens(self, value: Tensor) -> Tensor:
        """Returns the bin index, int64 [*B, H, A], that holds each action; clipped to the range."""
        count = self.logits.shape[-1]
        position = (value.float() - self.low) / (self.high - self.low) * count
        return position.floor().long().clamp(0, count - 1)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Samples chunks of bin centres, [*sample_shape, *B, H, A]."""
        return self.centres[self.bins.sample(torch.Size(sample_shape))]

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-probability [*B] of the bins that hold chunks [*B, H, A]."""
        return sum_executed(self.bins.log_prob(self.tokens(value)).sum(-1), self.executed)

    def entropy(self) -> Tensor:
        """Returns the entropy [*B]."""
        return sum_executed(self.bins.entropy().sum(-1), self.executed)


@register_kl(ChunkNormal, ChunkNormal)
def _kl_chunk_normal(p: ChunkNormal, q: ChunkNormal) -> Tensor:
    return sum_executed(normal_divergence(p, q).sum(-1), p.executed)


@register_kl(ChunkCategorical, ChunkCategorical)
def _kl_chunk_categorical(p: ChunkCategorical, q: ChunkCategorical) -> Tensor:
    divergence = torch.distributions.kl_divergence(p.bins, q.bins)
    return sum_executed(divergence.sum(-1), p.executed)


def normal_log_prob(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Of each number by itself."""
    standardised = (value - loc) / scale
    return -0.5 * standardised.square() - scale.log() - 0.5 * math.log(2 * math.pi)


def normal_divergence(p: Any, q: Any) -> Tensor:
    """KL divergence of each normal with ``loc`` and ``scale`` in ``p`` from that in ``q``."""
    ratio: Tensor = (p.scale / q.scale).square()
    distance: Tensor = ((p.loc - q.loc) / q.scale).square()
    return 0.5 * (ratio + distance - 1 - ratio.log())


def checked_executed(executed: Tensor | None, shape: torch.Size) -> Tensor | None:
    """The mask, if it fits the batch and the chunk size."""
    if executed is not None and executed.shape != shape:
        raise ValueError(
            f"executed must have shape {tuple(shape)} (batch and chunk size), got "
            f"{tuple(executed.shape)}."
        )
    return executed


def sum_executed(each: Tensor, executed: Tensor | None) -> Tensor:
    """The sum over a chunk's executed actions, [*B, H] to [*B]."""
    if executed is not None:
        each = torch.where(executed, each, torch.zeros_like(each))
    return each.sum(-1)
