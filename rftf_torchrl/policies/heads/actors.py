"""Stochastic chunk policies for stock TorchRL collectors and losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from tensordict.nn import (
    InteractionType,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictModuleBase,
)
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.modules.vla import VLAWrapperBase

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.finite_output import check_finite_output
from rftf_torchrl.policies.heads.distributions import ChunkCategorical, ChunkNormal


def draw_chunk(
    distribution: type[Distribution],
    parameters: Mapping[str, NestedKey],
    constants: Mapping[str, Any] | None = None,
    *,
    chunk_key: NestedKey = keys.CHUNK,
    log_prob_key: NestedKey = keys.LOG_PROB,
    executed_key: NestedKey = keys.EXECUTED,
) -> ProbabilisticTensorDictModule:
    """The module that draws a chunk and writes its log-probability.

    Args:
        distribution: of a chunk; its argument ``executed`` is read where the data have it.
        parameters: key of each of its other parameters in the data.
        constants: its further arguments.
        chunk_key: where the chunk goes.
        log_prob_key: where its log-probability goes.
        executed_key: where the data tell which actions were executed.
    """
    return ProbabilisticTensorDictModule(
        in_keys={**parameters, "executed": executed_key},
        out_keys=[chunk_key],
        distribution_class=distribution,
        distribution_kwargs=dict(constants or {}),
        return_log_prob=True,
        log_prob_key=log_prob_key,
        default_interaction_type=InteractionType.RANDOM,
    )


def check_writes(network: TensorDictModuleBase, *needed: NestedKey) -> None:
    """Refuse a network that does not write what an actor reads.

    Raises:
        ValueError: naming what is missing.
    """
    missing = [key for key in needed if key not in network.out_keys]
    if missing:
        raise ValueError(
            f"the network must write {', '.join(map(repr, missing))}, it writes "
            f"{list(network.out_keys)}: set its out_keys."
        )


class BoundedScale(nn.Module):
    r"""A standard deviation per action of the chunk that does not depend on the state.

    .. math::
        \sigma = \mathrm{low} + (\mathrm{high} - \mathrm{low}) \cdot \mathrm{sigmoid}(\rho)

    The lower bound keeps the log-probability of PPO's ratio from exploding, the upper one keeps
    the arm from shaking; the sigmoid lets the gradient lead back from either bound.

    Args:
        shape: chunk size and action dimension, (H, A).
        init: initial standard deviation, strictly inside the bounds.
        bounds: (low, high), both positive.
        learn: whether :math:`\rho` is a parameter or a buffer.

    Raises:
        ValueError: if the bounds or the initial value do not fit.

    Examples:
        >>> BoundedScale((1, 2), init=0.3, bounds=(0.05, 1.0))(torch.zeros(1, 2))
        tensor([[0.3000, 0.3000]], grad_fn=<ExpandBackward0>)
    """

    raw: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        init: float,
        bounds: tuple[float, float],
        learn: bool = True,
    ) -> None:
        super().__init__()
        low, high = bounds
        if not 0 < low < init < high:
            raise ValueError(
                f"init_scale must lie strictly inside positive scale_bounds, got {init} and "
                f"{tuple(bounds)}."
            )
        self.low = float(low)
        self.high = float(high)
        fraction = (init - low) / (high - low)
        raw = torch.full(shape, math.log(fraction / (1 - fraction)))
        if learn:
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw)

    def forward(self, loc: Tensor) -> Tensor:
        """Returns the standard deviation in the shape of `loc`, [*B, H, A].

        Raises:
            ValueError: if `loc` has another chunk size or action dimension.
            FloatingPointError: if a number of it or of the standard deviation is not finite.
        """
        if loc.shape[-2:] != self.raw.shape:
            raise ValueError(
                f"the network wrote a mean of shape {tuple(loc.shape)}, expected it to end in "
                f"(chunk_size, action_dim) = {tuple(self.raw.shape)}."
            )
        check_finite_output(loc, "means")
        scale = self.low + (self.high - self.low) * torch.sigmoid(self.raw)
        return check_finite_output(scale, "standard deviations").expand_as(loc)


@nested_keys
def gaussian_actor(
    network: TensorDictModuleBase,
    *,
    chunk_size: int,
    action_dim: int,
    init_scale: float = 0.3,
    learn_scale: bool = True,
    scale_bounds: tuple[float, float] = (0.05, 1.0),
    **places: NestedKey,
) -> ProbabilisticTensorDictSequential:
    """Makes a Gaussian policy from a network that predicts a chunk.

    The policy writes ``"loc"`` and ``"scale"`` [*B, H, A], the sampled chunk [*B, H, A] and its
    log-probability [*B]. In deterministic mode the chunk is the mean. Where the data tell which
    actions were executed, only these count; without that entry all do.

    Args:
        network: a TensorDict module that writes ``"loc"``, or a TorchRL VLA
            (:class:`torchrl.modules.vla.VLAWrapperBase`) with a continuous head, whose output
            keys this function redirects to ``"loc"``.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        init_scale: initial standard deviation.
        learn_scale: whether the standard deviation is learned.
        scale_bounds: smallest and largest standard deviation.
        **places: ``chunk_key``, ``log_prob_key``, where the two go, and ``executed_key``, where the
            data tell which actions were executed, bool [*B, H].

    Returns:
        The policy, as collectors and :class:`torchrl.objectives.ClipPPOLoss` take it.

    Raises:
        ValueError: if the network does not write ``"loc"``.
        FloatingPointError: on use, if a mean or a standard deviation is not finite.

    Examples:
        >>> from tensordict import TensorDict
        >>> network = TensorDictModule(
        ...     nn.Sequential(nn.Linear(3, 8), nn.Unflatten(-1, (4, 2))), ["state"], ["loc"]
        ... )
        >>> actor = gaussian_actor(network, chunk_size=4, action_dim=2)
        >>> out = actor(TensorDict({"state": torch.zeros(5, 3)}, [5]))
        >>> out["vla_action", "chunk"].shape, out["vla_action", "log_probs"].shape
        (torch.Size([5, 4, 2]), torch.Size([5]))
    """
    if isinstance(network, VLAWrapperBase):
        _redirect_vla(network)
    check_writes(network, keys.LOC)
    scale = BoundedScale(
        (chunk_size, action_dim), init=init_scale, bounds=scale_bounds, learn=learn_scale
    )
    return ProbabilisticTensorDictSequential(
        network,
        TensorDictModule(scale, in_keys=[keys.LOC], out_keys=[keys.SCALE]),
        draw_chunk(ChunkNormal, {"loc": keys.LOC, "scale": keys.SCALE}, **places),
    )


@nested_keys
def token_actor(
    network: TensorDictModuleBase,
    *,
    chunk_size: int,
    action_dim: int,
    bins: int = 11,
    low: float = -1.0,
    high: float = 1.0,
    **places: NestedKey,
) -> ProbabilisticTensorDictSequential:
    """Makes a policy over action tokens from a network that predicts the logits of bins.

    The policy writes the chunk as bin centres under the same keys as :func:`gaussian_actor`.

    Args:
        network: a TensorDict module that writes ``"logits"``, float [*B, H, A, bins].
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        bins: uniform bins per action dimension.
        low: lower end of the first bin.
        high: upper end of the last bin.
        **places: ``chunk_key``, ``log_prob_key``, where the two go, and ``executed_key``, where the
            data tell which actions were executed, bool [*B, H].

    Returns:
        The policy, as collectors and :class:`torchrl.objectives.ClipPPOLoss` take it.

    Raises:
        ValueError: if the network does not write ``"logits"``.
        FloatingPointError: on use, if a logit is NaN, or a row's largest is infinite.

    Examples:
        >>> from tensordict import TensorDict
        >>> network = TensorDictModule(
        ...     nn.Sequential(nn.Linear(3, 88), nn.Unflatten(-1, (4, 2, 11))), ["state"], ["logits"]
        ... )
        >>> actor = token_actor(network, chunk_size=4, action_dim=2)
        >>> actor(TensorDict({"state": torch.zeros(5, 3)}, [5]))["vla_action", "chunk"].shape
        torch.Size([5, 4, 2])
    """
    check_writes(network, keys.LOGITS)
    return ProbabilisticTensorDictSequential(
        network,
        TensorDictModule(
            _CheckedLogits((chunk_size, action_dim, bins)), [keys.LOGITS], [keys.LOGITS]
        ),
        draw_chunk(ChunkCategorical, {"logits": keys.LOGITS}, {"low": low, "high": high}, **places),
    )


class _CheckedLogits(nn.Module):
    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, logits: Tensor) -> Tensor:
        if tuple(logits.shape[-3:]) != self.shape:
            raise ValueError(
                f"the network wrote logits of shape {tuple(logits.shape)}, expected them to end "
                f"in (chunk_size, action_dim, bins) = {self.shape}."
            )
        check_finite_output(logits.amax(-1), "rows of logits")  # a bin may be ruled out by -inf
        return logits


def _redirect_vla(network: VLAWrapperBase) -> None:
    if network.action_head != "continuous":
        raise ValueError(
            f"gaussian_actor needs a VLA with a continuous head, got {network.action_head!r}: "
            "TorchRL's token head is stochastic by itself."
        )
    network.return_vla_action_container = False
    network.set_keys(action_chunk=keys.LOC)
