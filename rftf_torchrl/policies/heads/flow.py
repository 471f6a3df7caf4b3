"""A flow-matching chunk head made stochastic, for stock TorchRL collectors and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import (
    InteractionType,
    ProbabilisticTensorDictSequential,
    TensorDictModuleBase,
)
from tensordict.nn.probabilistic import interaction_type
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.functional.flow import flow_sde_transition
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.finite_output import check_finite_output
from rftf_torchrl.policies.heads.actors import check_writes, draw_chunk
from rftf_torchrl.policies.heads.distributions import ChunkFlow


class FlowHead(TensorDictModuleBase):
    r"""Writes the Gaussian transitions of K denoising steps, and the path where none is stored.

    Without noise network a step is :func:`~rftf_torchrl.flow_sde_transition`; with one
    it is :math:`N(x_k + v\,\Delta\tau, \sigma_k^2)` with the network's standard deviation
    (flow-noise). A stored path is scored, not drawn again.

    Args:
        velocity: module, called as ``velocity(x, tau, *features)`` with x float32 [*B, H, A] and
            tau float32 [*B]; returns [*B, H, A].
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        steps: denoising steps, K.
        level: noise level of the stochastic differential equation; unused with a noise network.
        noise: None, or a module called as ``noise(step, *features)`` that returns standard
            deviations which broadcast to [*B, H, A], such as :class:`FlowNoise`.
        feature_keys: what velocity and noise read besides.
        path_key: where the path goes, float32 [*B, K, H, A].
        chunk_key: where the chunk of stored data is.

    Raises:
        ValueError: if a number is out of its range.
    """

    @nested_keys
    def __init__(
        self,
        velocity: nn.Module,
        *,
        chunk_size: int,
        action_dim: int,
        steps: int = 4,
        level: float = 0.5,
        noise: nn.Module | None = None,
        feature_keys: Sequence[NestedKey] = (keys.FEATURES,),
        path_key: NestedKey = keys.FLOW_PATH,
        chunk_key: NestedKey = keys.CHUNK,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        if noise is None and not level > 0:
            raise ValueError(
                f"level must be above 0, got {level}: without noise there is no log-probability."
            )
        self.velocity = velocity
        self.noise = noise
        self.shape = (int(chunk_size), int(action_dim))
        self.steps = int(steps)
        self.level = float(level)
        self.feature_keys = [unravel_key(key) for key in feature_keys]
        self.path_key = unravel_key(path_key)
        self.chunk_key = unravel_key(chunk_key)
        self.draw = False
        self.in_keys = [*self.feature_keys, self.path_key]
        self.out_keys = [self.path_key, keys.FLOW_LOC, keys.FLOW_SCALE, keys.FLOW_MODE]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Scores the stored path, or draws one.

        Raises:
            ValueError: if the stored path or a velocity has another shape.
            KeyError: if the data hold a chunk without the path that led to it.
            FloatingPointError: if a mean or a standard deviation is NaN or infinite.
        """
        features = [tensordict.get(key) for key in self.feature_keys]
        stored = None if self.draw else tensordict.get(self.path_key, None)
        if stored is None and not self.draw and tensordict.get(self.chunk_key, None) is not None:
            raise KeyError(
                f"the data hold a chunk at {self.chunk_key!r} and no denoising path at "
                f"{self.path_key!r}: store what the actor wrote. A chunk of a demonstration has "
                "no path; clone it with FlowMatchingLoss."
            )
        batch = tensordict.batch_size
        if stored is not None and stored.shape != (*batch, self.steps, *self.shape):
            raise ValueError(
                f"the stored path at {self.path_key!r} has shape {tuple(stored.shape)}, expected "
                f"batch, steps, chunk_size, action_dim = {(*batch, self.steps, *self.shape)}."
            )
        quiet = interaction_type() not in (None, InteractionType.RANDOM)
        dt, device = 1 / self.steps, features[0].device
        if stored is None:
            begin = torch.zeros if quiet else torch.randn
            x = begin(*batch, *self.shape, device=device)
        else:
            x = stored[..., 0, :, :].float()
        path, locs, scales = [], [], []
        for step in range(self.steps):
            tau = step * dt
            velocity = self._velocity(x, tau, features)
            straight = x + velocity * dt
            if self.noise is None:
                loc, std = flow_sde_transition(x, velocity, tau, dt, self.level)
                scale = loc.new_full((*batch, 1, 1), std)
            else:
                loc, scale = straight, self.noise(step, *features).float().expand_as(straight)
            path.append(x)
            locs.append(loc)
            scales.append(scale)
            if stored is not None:
                x = stored[..., min(step + 1, self.steps - 1), :, :].float()
            elif quiet:
                x = straight.detach()
            else:
                x = (loc + scale * torch.randn_like(loc)).detach()
        loc, scale = torch.stack(locs, -3), torch.stack(scales, -3)
        check_finite_output(loc, "denoised means")
        if self.noise is not None:
            check_finite_output(scale, "standard deviations")
        tensordict.set(self.path_key, torch.stack(path, -3))
        tensordict.set(keys.FLOW_LOC, loc)
        tensordict.set(keys.FLOW_SCALE, scale)
        tensordict.set(keys.FLOW_MODE, straight)
        return tensordict

    def _velocity(self, x: Tensor, tau: float, features: list[Tensor]) -> Tensor:
        velocity: Tensor = self.velocity(x, x.new_full(x.shape[:-2], tau), *features)
        if velocity.shape != x.shape:
            raise ValueError(
                f"the velocity has shape {tuple(velocity.shape)}, expected that of the chunk, "
                f"{tuple(x.shape)}."
            )
        return velocity.float()


class FlowActor(ProbabilisticTensorDictSequential):
    """A policy that draws a new denoising path when called, and scores the stored one in losses.

    Built by :func:`flow_actor`.
    """

    @property
    def head(self) -> FlowHead:
        """The module that writes the transitions."""
        return cast(FlowHead, self.module[-2])

    def forward(self, *args: Any, **kwargs: Any) -> TensorDictBase:
        """Writes a new path, the chunk at its end and its log-probability."""
        head = self.head
        head.draw = True
        try:
            return super().forward(*args, **kwargs)
        finally:
            head.draw = False


@nested_keys
def flow_actor(
    network: TensorDictModuleBase,
    velocity: nn.Module,
    *,
    chunk_size: int,
    action_dim: int,
    chunk_key: NestedKey = keys.CHUNK,
    log_prob_key: NestedKey = keys.LOG_PROB,
    executed_key: NestedKey = keys.EXECUTED,
    **options: Any,
) -> FlowActor:
    """Makes a stochastic policy from features and a flow-matching velocity network.

    The policy writes the denoising path [*B, K, H, A], the chunk [*B, H, A] at its end and the
    log-probability [*B] of path and chunk (:class:`ChunkFlow`). In deterministic mode the chunk is
    where the ordinary differential equation leads from zero noise. That is one chunk for an
    observation; where demonstrations differ, it may lie between them. Losses read the stored path.
    Clone demonstrations with :class:`~rftf_torchrl.FlowMatchingLoss`, which trains the same
    velocity network.

    Source: Liu et al. 2025, "Flow-GRPO", arXiv 2505.05470, and Chen et al. 2025, "pi_RL",
    arXiv 2510.25889 (flow-SDE, flow-noise); Zhang et al. 2025, "ReinFlow", arXiv 2505.22094
    (learned noise).

    Args:
        network: a TensorDict module that writes the features.
        velocity: the velocity network, ``velocity(x, tau, *features)``: x float32 [*B, H, A], tau
            float32 [*B] from 0 (noise) to 1 (action); :class:`ChunkVelocity`, or yours.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        chunk_key: where the chunk goes.
        log_prob_key: where its log-probability goes.
        executed_key: where the data tell which actions were executed, bool [*B, H].
        **options: of :class:`FlowHead`: ``steps``, ``level``, ``noise`` (None for flow-SDE, or
            :class:`FlowNoise`), ``feature_keys`` and ``path_key``.

    Returns:
        The policy, as collectors and :class:`torchrl.objectives.ClipPPOLoss` take it.

    Raises:
        ValueError: if the network does not write the features, or a number is out of its range.
        FloatingPointError: on use, if a mean or a standard deviation is not finite.

    Examples:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from rftf_torchrl import ChunkVelocity
        >>> network = TensorDictModule(nn.Linear(3, 8), ["state"], ["features"])
        >>> actor = flow_actor(network, ChunkVelocity(8, (4, 2)), chunk_size=4, action_dim=2)
        >>> out = actor(TensorDict({"state": torch.zeros(5, 3)}, [5]))
        >>> out["vla_action", "chunk"].shape, out["vla_action", "flow_path"].shape
        (torch.Size([5, 4, 2]), torch.Size([5, 4, 4, 2]))
    """
    head = FlowHead(
        velocity,
        chunk_size=chunk_size,
        action_dim=action_dim,
        chunk_key=chunk_key,
        **options,
    )
    check_writes(network, *head.feature_keys)
    return FlowActor(
        network,
        head,
        draw_chunk(
            ChunkFlow,
            {
                "loc": keys.FLOW_LOC,
                "scale": keys.FLOW_SCALE,
                "path": head.path_key,
                "mode": keys.FLOW_MODE,
            },
            chunk_key=chunk_key,
            log_prob_key=log_prob_key,
            executed_key=executed_key,
        ),
    )
