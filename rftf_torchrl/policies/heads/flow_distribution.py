"""The distribution of a chunk that Gaussian denoising steps lead to, along the path taken."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import register_kl

from rftf_torchrl.policies.heads.distributions import (
    ChunkDistribution,
    checked_executed,
    normal_divergence,
    normal_log_prob,
)


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
        """Returns the joint log-density [*B] of the path and its last state `value` [*B, H, A]."""
        following = torch.cat([self.path[..., 1:, :, :], value.float().unsqueeze(-3)], -3)
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
