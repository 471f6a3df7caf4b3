"""What data keep of a reference policy, and how far a policy is from it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import (
    CompositeDistribution,
    ProbabilisticTensorDictSequential,
    set_composite_lp_aggregate,
)
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torchrl.modules.distributions.utils import has_analytic_kl
from torchrl.modules.vla import VLAWrapperBase

_LOG_PROB = "log_prob"
_LOGITS = "logits"


class StoredReference:
    """What of a policy's distribution lies in data, so that a loss needs no second policy there.

    Of a ``ProbabilisticTensorDictSequential`` the distribution's parameters, of a VLA of TorchRL's
    the logits, of any other policy with ``get_dist`` the log-probability of the data's action.

    Args:
        actor: the policy.

    Raises:
        ValueError: if it has no distribution that a loss can use.
    """

    def __init__(self, actor: Any) -> None:
        _refuse_without_distribution(actor)
        self.parameters: list[NestedKey] = []  # of the distribution, as the network writes them
        self._kind: type | None = None
        if isinstance(actor, VLAWrapperBase):
            self._kind = VLAWrapperBase
        elif isinstance(actor, ProbabilisticTensorDictSequential) and not actor.return_composite:
            self.parameters = _predicted_parameters(actor)
            self._kind = ProbabilisticTensorDictSequential if self.parameters else None

    @property
    def keys(self) -> list[NestedKey]:
        """Its entries."""
        if self._kind is ProbabilisticTensorDictSequential:
            return self.parameters
        return [_LOGITS if self._kind is VLAWrapperBase else _LOG_PROB]

    def read(self, actor: Any, data: TensorDictBase, actions: list[NestedKey]) -> TensorDictBase:
        """What is kept of a policy's distribution of the actions of data [N]."""
        if self._kind is ProbabilisticTensorDictSequential:
            found: TensorDictBase = actor.get_dist_params(data.copy()).select(*self.parameters)
            return found
        if self._kind is VLAWrapperBase:
            empty = TensorDict(batch_size=data.batch_size)
            written = actor(data, logits_only=True, tensordict_out=empty)
            kept = written.get(actor.tensor_keys.action_logits)
            return TensorDict({_LOGITS: kept}, data.batch_size)
        log_prob = log_prob_of(actor.get_dist(data.copy()), data, actions, data.batch_dims)
        return TensorDict({_LOG_PROB: log_prob}, data.batch_size)

    def distribution(
        self, actor: Any, data: TensorDictBase, place: NestedKey
    ) -> Distribution | None:
        """The distribution that lies in the data; None where only the log-probability does."""
        found: Distribution | None = None
        if self._kind is ProbabilisticTensorDictSequential:
            found = actor.build_dist_from_params(data.copy().update(data.get(place)))
        elif self._kind is VLAWrapperBase:
            found = actor.get_dist(data, logits_key=unravel_key((place, _LOGITS)))
        return found

    def divergence(
        self,
        actor: Any,
        current: Distribution,
        log_weight: Tensor,
        data: TensorDictBase,
        *,
        place: NestedKey,
        actions: list[NestedKey],
        batch_dims: int,
    ) -> Tensor:
        """KL divergence [*B] of the policy from the reference; see :class:`RFTFPPOLoss`.

        Args:
            actor: the policy.
            current: its distribution.
            log_weight: log w, float [*B, 1].
            data: holds the reference at `place` and the actions.
            place: see above.
            actions: keys of the actions.
            batch_dims: number of dimensions of *B.
        """
        reference = self.distribution(actor, data, place)
        if reference is None:
            reference_log_prob = data.get(unravel_key((place, _LOG_PROB)))
        else:
            exact = _closed_form(current, reference, batch_dims)
            if exact is not None:
                return exact
            reference_log_prob = log_prob_of(reference, data, actions, batch_dims)
        log_ratio = reference_log_prob - log_prob_of(current, data, actions, batch_dims)
        estimate: Tensor = log_ratio.expm1() - log_ratio
        return summed(log_weight.squeeze(-1), batch_dims).exp() * estimate


def draws_composite(actor: Any) -> bool:
    """Whether an actor draws several actions at once."""
    return getattr(_drawing(actor), "distribution_class", None) is CompositeDistribution


def optional_keys(actor: Any) -> set[NestedKey]:
    """What an actor's distribution reads if it is there, as the mask of executed actions."""
    module = _drawing(actor)
    kind = getattr(module, "distribution_class", None)
    if kind is None:
        return set()
    arguments = inspect.signature(kind).parameters
    names = [name if isinstance(name, str) else name[-1] for name in module.dist_keys]
    return {
        unravel_key(key)
        for name, key in zip(names, module.in_keys, strict=True)
        if name in arguments and arguments[name].default is None
    }


def _drawing(actor: Any) -> Any:
    """The module that draws the action."""
    return actor[-1] if isinstance(actor, ProbabilisticTensorDictSequential) else actor


def log_prob_of(
    distribution: Distribution, data: TensorDictBase, actions: list[NestedKey], batch_dims: int
) -> Tensor:
    """The joint log-probability [*B] of the data's actions."""
    if isinstance(distribution, CompositeDistribution):
        with set_composite_lp_aggregate(False):
            return summed(distribution.log_prob(data.select(*actions)), batch_dims)
    return summed(distribution.log_prob(data.get(actions[0])), batch_dims)


def summed(each: Tensor | TensorDictBase, batch_dims: int) -> Tensor:
    """The sum [*B] of whatever there is per element of the batch."""
    if isinstance(each, TensorDictBase):
        return torch.stack([summed(leaf, batch_dims) for leaf in each.values(True, True)]).sum(0)
    return each.flatten(batch_dims).sum(-1) if each.ndim > batch_dims else each


def _closed_form(p: Any, q: Any, batch_dims: int) -> Tensor | None:
    if isinstance(p, CompositeDistribution):
        parts = [_closed_form(p.dists[name], q.dists[name], batch_dims) for name in p.dists]
        known = [part for part in parts if part is not None]
        return torch.stack(known).sum(0) if len(known) == len(parts) else None
    if not has_analytic_kl(p, q):
        return None
    return summed(kl_divergence(p, q), batch_dims)


def _refuse_without_distribution(actor: Any) -> None:
    name = type(actor).__name__
    if not (hasattr(actor, "get_dist") and hasattr(actor, "in_keys")):
        raise ValueError(
            f"the policy is a {name}, which has no get_dist and in_keys: a loss needs its "
            "distribution. Build it with gaussian_actor, token_actor, flow_actor or TorchRL's "
            "ProbabilisticActor."
        )
    if not isinstance(actor, VLAWrapperBase):
        return
    if actor.action_head != "tokens":
        raise ValueError(
            f"the policy is a {name} with a continuous head, which has no distribution: wrap it by "
            "gaussian_actor, or build it with action_head='tokens'."
        )
    if actor.return_logits:
        raise ValueError(
            f"the policy is a {name} with return_logits=True: its get_dist would read the stored "
            "logits, and no gradient would reach its weights. Build it with return_logits=False."
        )


def _predicted_parameters(actor: ProbabilisticTensorDictSequential) -> list[NestedKey]:
    """The distribution's parameters that the network writes, without those that the data hold."""
    held = {unravel_key(key) for key in actor.det_part.in_keys}
    written = {unravel_key(key) for key in actor.det_part.out_keys} - held
    return [
        key
        for key in map(unravel_key, actor.dist_params_keys)
        if any(_path(other)[: len(_path(key))] == _path(key) for other in written)
    ]


def _path(key: NestedKey) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key
