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
        value = where_executed(value.float(), self.loc, self.executed)
        each = normal_log_prob(value, self.loc, self.scale)
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


def where_executed(value: Tensor, other: Tensor, executed: Tensor | None) -> Tensor:
    """Actions [*B, H, A], with others where they were never executed: NaN there has no gradient."""
    if executed is None:
        return value
    return torch.where(executed.unsqueeze(-1), value, other.detach())


def sum_executed(each: Tensor, executed: Tensor | None) -> Tensor:
    """The sum over a chunk's executed actions, [*B, H] to [*B]."""
    if executed is not None:
        each = torch.where(executed, each, torch.zeros_like(each))
    return each.sum(-1)


class ChunkFlow(ChunkDistribution):
    r"""Chain of K Gaussian denoising steps whose last state is the action chunk.

    .. math::
        \log \pi(x_1, \dots, x_K | x_0) = \sum_{k=0}^{K-1} \sum_{h,d}
            \log N\big( x_{k+1,hd};\; \mu_{k,hd}(x_k), \sigma_{k,hd} \big)

    is the joint log-density of the denoising path; the density of the chunk alone would be an
    integral over all paths. The initial noise :math:`x_0` has the same law under every policy and
    is left out: it cancels in ratio and divergence. An action that was never executed had no
    effect by its last state, which is left out too; its earlier states stay, because they moved
    the other actions of the chunk through the network.

    Entropy and :func:`torch.distributions.kl_divergence` are the sums of the transitions' closed
    forms *along this path*. Averaged over paths of the policy they are entropy and divergence of
    the path distributions (chain rule); the latter bounds the divergence of the chunks from above.

    Source: Chen et al. 2025, "pi_RL", arXiv 2510.25889; Liu et al. 2025, "Flow-GRPO",
    arXiv 2505.05470; Zhang et al. 2025, "ReinFlow", arXiv 2505.22094.

    Args:
        loc: means of the K transitions, float [*B, K, H, A].
        scale: standard deviations, positive, float, that broadcasts to loc.
        path: the states before each transition, :math:`x_0, \dots, x_{K-1}`, float
            [*B, K, H, A].
        mode: where the noise-free flow leads, float [*B, H, A].
        executed: bool [*B, H]; None counts every action.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        >>> loc, path = torch.zeros(2, 3, 1), torch.zeros(2, 3, 1)  # two steps, three actions
        >>> dist = ChunkFlow(loc, torch.ones(2, 1, 1), path, torch.zeros(3, 1))
        >>> round(float(dist.log_prob(torch.zeros(3, 1))), 4)  # -6 * log(2 pi) / 2
        -5.5136
    """

    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        path: Tensor,
        mode: Tensor,
        executed: Tensor | None = None,
    ) -> None:
        batch, event = loc.shape[:-3], loc.shape[-2:]
        if path.shape != loc.shape:
            raise ValueError(
                f"path must hold a state per transition, {tuple(loc.shape)}, got "
                f"{tuple(path.shape)}."
            )
        if mode.shape != batch + event:
            raise ValueError(
                f"mode must have shape {tuple(batch + event)}, got {tuple(mode.shape)}."
            )
        self.loc = loc.float()
        self.scale = scale.float().expand_as(loc)
        self.path = path.float()
        self._mode = mode.float()
        self.executed = checked_executed(executed, batch + event[:1])
        super().__init__(batch, event, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """Where the noise-free flow leads, [*B, H, A]."""
        return self._mode

    @property
    def mean(self) -> Tensor:
        """The mean of the last step, given the path, [*B, H, A]."""
        return self.loc[..., -1, :, :]

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Samples the last step, chunks [*sample_shape, *B, H, A]; the path before it is given."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.mean + self.scale[..., -1, :, :] * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the joint log-density [*S, *B] of the path and its last state [*S, *B, H, A]."""
        last = where_executed(value.float(), self.mean, self.executed).unsqueeze(-3)
        before = self.path[..., 1:, :, :].expand(*last.shape[:-3], -1, -1, -1)
        following = torch.cat([before, last], -3)
        return self._total(normal_log_prob(following, self.loc, self.scale))

    def entropy(self) -> Tensor:
        """Returns the sum [*B] of the transitions' entropies."""
        return self._total(self.scale.log() + 0.5 * (1 + math.log(2 * math.pi)))

    def _total(self, each: Tensor) -> Tensor:
        """Sums [*B, K, H, A] to [*B], without the last states of unexecuted actions."""
        each = each.sum(-1)
        last = each[..., -1, :]
        if self.executed is not None:
            last = torch.where(self.executed, last, torch.zeros_like(last))
        return each[..., :-1, :].sum((-2, -1)) + last.sum(-1)


@register_kl(ChunkFlow, ChunkFlow)
def _kl_chunk_flow(p: ChunkFlow, q: ChunkFlow) -> Tensor:
    return p._total(normal_divergence(p, q))
