"""Behaviour cloning of a flow policy."""

from __future__ import annotations

from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rftf_torchrl.functional.flow import flow_matching_error
from rftf_torchrl.objectives._cloning import ChunkCloningLoss
from rftf_torchrl.policies.heads.flow import FlowActor


class FlowMatchingLoss(ChunkCloningLoss):
    r"""Clones demonstrations into the velocity network of a flow policy.

    .. math::
        L = E_{\tau, \epsilon} \big\| v(\tau a + (1 - \tau) \epsilon, \tau, f(s))
            - (a - \epsilon) \big\|^2

    One time and one noise are drawn per decision and call. Used like
    :class:`torchrl.objectives.BCLoss`, whose key of the loss it has. A learned noise
    (:class:`~rftf_torchrl.FlowNoise`) gets no gradient: PPO trains it.

    Source: Lipman et al. 2023, arXiv 2210.02747; Black et al. 2024, "pi_0", arXiv 2410.24164,
    appendix B (the beta distribution of times, which favours noisy chunks).

    Args:
        actor_network: a policy from :func:`~rftf_torchrl.flow_actor`.
        times: ``"uniform"``, or ``"beta"``: :math:`\tau = 0.999 (1 - u)` with
            :math:`u \sim \mathrm{Beta}(1.5, 1)`.

    Raises:
        ValueError: if the policy is no flow policy or the word is unknown.

    Examples:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from rftf_torchrl import ChunkVelocity, flow_actor
        >>> network = TensorDictModule(torch.nn.Linear(3, 8), ["state"], ["features"])
        >>> actor = flow_actor(network, ChunkVelocity(8, (4, 2)), chunk_size=4, action_dim=2)
        >>> data = TensorDict({"state": torch.zeros(5, 3)}, [5])
        >>> data["vla_action", "chunk"] = torch.zeros(5, 4, 2)
        >>> bool(FlowMatchingLoss(actor)(data)["loss_bc"] > 0)
        True
    """

    def __init__(
        self, actor_network: FlowActor, *, times: Literal["uniform", "beta"] = "uniform"
    ) -> None:
        if not isinstance(actor_network, FlowActor):
            raise ValueError(
                f"FlowMatchingLoss needs a policy from flow_actor, got "
                f"{type(actor_network).__name__}: clone other policies with BCLoss."
            )
        if times not in ("uniform", "beta"):
            raise ValueError(f"times must be 'uniform' or 'beta', got {times!r}.")
        super().__init__(actor_network, actor_network.det_part.module[0])
        self.times = times

    def _loss(self, tensordict: TensorDictBase, action: Tensor, mask: Tensor | None) -> Tensor:
        network, head = self.actor_network.module[0], self.actor_network.head
        features = network(tensordict.select(*network.in_keys, strict=False))
        tau = self._draw_times(action)
        noise = torch.randn_like(action)
        weight = tau[..., None, None]
        velocity = head.velocity(
            weight * action + (1 - weight) * noise,
            tau,
            *(features.get(key) for key in head.feature_keys),
        )
        return flow_matching_error(velocity, action, noise, mask)

    def _draw_times(self, action: Tensor) -> Tensor:
        uniform = torch.rand(action.shape[:-2], device=action.device)
        if self.times == "uniform":
            return uniform
        return 0.999 * (1 - uniform ** (1 / 1.5))  # inverse distribution function of Beta(1.5, 1)
