"""PPO's clipped surrogate with a KL penalty to the frozen starting policy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    composite_lp_aggregate,
    dispatch,
)
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.data.llm.utils import KLControllerBase
from torchrl.modules.vla import VLAWrapperBase
from torchrl.objectives import ClipPPOLoss

from rftf_torchrl import keys
from rftf_torchrl.nets.lora import LoraReference
from rftf_torchrl.objectives.loss_keys import LossKeys
from rftf_torchrl.objectives.reference import StoredReference, draws_composite, optional_keys
from rftf_torchrl.settings import Positive, check_value

KL_BOUNDS = (1e-4, 10.0)
"""Between which the divergence's weight adapts."""


class RFTFPPOLoss(LossKeys, ClipPPOLoss):
    r"""Clipped PPO that stays near the policy it started from.

    .. math::
        L = L_\mathrm{clip} + L_\mathrm{critic} + L_\mathrm{entropy}
        + c \cdot E\big[ \mathrm{KL}(\pi(\cdot | s) \,\|\, \pi_\mathrm{ref}(\cdot | s)) \big]

    The divergence is in nats per decision and counts executed actions only. It is in closed form
    where torch has one; for several actions at once it is the sum of theirs. Otherwise (a truncated
    normal, a mixture, a policy of which the data can keep no distribution) it is estimated by the
    data's action,

    .. math::
        w \, (\rho - 1 - \log \rho), \qquad \rho = \frac{\pi_\mathrm{ref}(a | s)}{\pi(a | s)}, \quad
        w = \frac{\pi(a | s)}{\pi_\mathrm{old}(a | s)},

    which is never negative and right on average, as is its gradient, while the data are as they
    were drawn.

    The reference runs once per batch of data, in :meth:`add_reference`; the update epochs read what
    it left in the data. The coefficient changes only in :meth:`adapt_kl`, which the recipe calls
    once per iteration. With TorchRL's trainers, :class:`~rftf_torchrl.ReferenceHook` calls both.

    Any policy with ``get_dist`` and ``in_keys`` will do, TorchRL's token VLAs
    (:class:`torchrl.modules.vla.TinyVLA`) included, whose own keys are then the defaults.

    Source: Schulman et al. 2017, "PPO", arXiv 1707.06347, eq. 7 and section 4 (adaptive KL); Shu,
    Lin, Wang 2025, "RFTF", arXiv 2505.19767; Schulman 2020, "Approximating KL divergence" (k3), and
    DeepSeek-AI 2025, "DeepSeek-V3.2", arXiv 2512.02556 (its weight w). The rest is
    :class:`torchrl.objectives.ClipPPOLoss`, whose keyword arguments are taken as well.

    Args:
        actor_network: the policy.
        critic_network: the critic; None trains the policy alone.
        reference_actor: the policy to stay near. It is copied, frozen and kept out of
            ``parameters()`` and ``state_dict()``. ``"adapters_off"`` is the policy itself as it is
            now and without its low-rank adapters: no copy but of the other parameters that train
            (:class:`~rftf_torchrl.LoraReference`). A function that returns a context
            manager is called in its place; inside the context, the policy has to be the reference.
            None if the data already hold its distribution.
        kl_coeff: initial coefficient c, 0.1 if not given; 0 leaves the penalty out.
        kl_to_ref_coeff: the same by the name that :class:`torchrl.objectives.llm.GRPOLoss` has for
            it; then the outputs have that loss's names too, ``"loss_kl_to_ref"`` and
            ``"kl_to_ref"``.
        kl_target: divergence that :meth:`adapt_kl` aims at, in nats per decision; None keeps the
            coefficient.
        kl_bounds: smallest and largest coefficient.
        kl_controller: a controller of TorchRL's, ``AdaptiveKLController`` say, that takes the place
            of the rule of :meth:`adapt_kl`, and whose coefficient is the initial one if none is
            given.

    Raises:
        ValueError: if a KL argument is out of its range, or the policy has no distribution.

    Examples:
        >>> from tensordict import TensorDict
        >>> from rftf_torchrl import gaussian_actor
        >>> network = TensorDictModule(
        ...     nn.Sequential(nn.Linear(3, 8), nn.Unflatten(-1, (4, 2))), ["state"], ["loc"]
        ... )
        >>> actor = gaussian_actor(network, chunk_size=4, action_dim=2)
        >>> loss = RFTFPPOLoss(actor, reference_actor=actor)
        >>> with torch.no_grad():
        ...     data = actor(TensorDict({"state": torch.zeros(5, 3)}, [5]))
        >>> data["advantage"] = torch.ones(5, 1)
        >>> float(loss(loss.add_reference(data))["kl_reference"])
        0.0
    """

    @dataclass
    class _AcceptedKeys(ClipPPOLoss._AcceptedKeys):
        """Keys of the data, besides those of ClipPPOLoss.

        Attributes:
            reference: the nested tensordict with the reference's distribution parameters.
        """

        reference: NestedKey = keys.REFERENCE

    tensor_keys: _AcceptedKeys
    kl_coeff: Tensor
    _in_keys: list[NestedKey]
    default_keys = _AcceptedKeys
    _schedulable_buffers = ClipPPOLoss._schedulable_buffers | {"kl_coeff"}

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential | VLAWrapperBase,
        critic_network: TensorDictModule | None = None,
        *,
        reference_actor: ProbabilisticTensorDictSequential
        | VLAWrapperBase
        | Literal["adapters_off"]
        | Callable[[], AbstractContextManager[Any]]
        | None = None,
        kl_coeff: float | None = None,
        kl_to_ref_coeff: float | None = None,
        kl_target: float | None = 0.02,
        kl_bounds: tuple[float, float] = KL_BOUNDS,
        kl_controller: KLControllerBase | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(kwargs.get("clip_epsilon", (0.2, 0.2)), (tuple, list)):
            check_value("clip_epsilon", kwargs["clip_epsilon"], Positive)
        low, high = kl_bounds
        if not 0 < low <= high:
            raise ValueError(f"kl_bounds must be 0 < low <= high, got {tuple(kl_bounds)}.")
        if kl_coeff is not None and kl_to_ref_coeff is not None:
            raise ValueError("kl_to_ref_coeff is another name of kl_coeff: give one of them.")
        names_of_grpo = kl_to_ref_coeff is not None
        kl_coeff = kl_to_ref_coeff if kl_coeff is None else kl_coeff
        if kl_coeff is None:
            kl_coeff = 0.1 if kl_controller is None else kl_controller.coef
        if kl_coeff != 0 and not low <= kl_coeff <= high:
            raise ValueError(
                f"kl_coeff must be 0 (off) or inside kl_bounds {tuple(kl_bounds)}, got {kl_coeff}."
            )
        if kl_target is not None and not kl_target > 0:
            raise ValueError(
                f"kl_target must be above 0, or None to keep kl_coeff: got {kl_target}."
            )
        stored = StoredReference(actor_network)
        as_reference: Callable[[], AbstractContextManager[Any]] = nullcontext
        if isinstance(reference_actor, str):
            if reference_actor != "adapters_off":
                raise ValueError(
                    "reference_actor must be a policy, 'adapters_off', a function that returns a "
                    f"context manager, or None: got {reference_actor!r}."
                )
            reference_actor = LoraReference(actor_network)
        if reference_actor is None or isinstance(reference_actor, nn.Module):
            reference = None if reference_actor is None else _frozen_copy(reference_actor)
        else:
            reference, as_reference = actor_network, reference_actor
        if critic_network is None:
            kwargs.setdefault("critic_coeff", None)
        super().__init__(actor_network, critic_network, **kwargs)
        if isinstance(actor_network, VLAWrapperBase):
            places = actor_network.tensor_keys
            self.set_keys(action=places.action_tokens, sample_log_prob=places.log_probs)
        self.kl_target = kl_target
        self.kl_bounds = (float(low), float(high))
        self.kl_controller = kl_controller
        self.register_coeff_buffer("kl_coeff", float(kl_coeff), device=self.entropy_coeff.device)
        self._has_kl = kl_coeff > 0
        self.kl_names = (
            ("loss_kl_to_ref", "kl_to_ref") if names_of_grpo else ("loss_kl", "kl_reference")
        )
        self._stored = stored
        self._kl: Tensor | None = None
        # Outside the registered modules: an optimizer over parameters() must not see it.
        self.__dict__["reference_actor"] = reference
        self.__dict__["_as_reference"] = as_reference
        self._set_in_keys()

    @property
    def kl_to_ref_coeff(self) -> Tensor:
        """GRPOLoss's name of ``kl_coeff``."""
        return self.kl_coeff

    @kl_to_ref_coeff.setter
    def kl_to_ref_coeff(self, value: float | Tensor) -> None:
        self.kl_coeff = float(value)  # type: ignore[assignment]  # TorchRL writes it in place

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "kl_coeff" and value and not self.__dict__.get("_has_kl", True):
            raise ValueError(
                "kl_coeff was 0 when this loss was built, which left the divergence out: build it "
                "with another."
            )
        super().__setattr__(name, value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}kl_coeff", None)
        if stored is not None and bool(stored) and not self._has_kl:
            *_, errors = args
            errors.append(
                f"kl_coeff is {float(stored):g} in the state, and was 0 when this loss was built, "
                "which left the divergence out: build it with another."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _written(self) -> list[str]:
        names = ["loss_objective", "clip_fraction"]
        if self.entropy_bonus:
            names += ["entropy", "loss_entropy"]
            if draws_composite(self.actor_network) and not composite_lp_aggregate(nowarn=True):
                names.append("composite_entropy")
        if self._has_critic:
            names.append("loss_critic")
            if self.clip_value:
                names.append("value_clip_fraction")
            if self.log_explained_variance:
                names.append("explained_variance")
        names += ["ESS", "kl_approx", "max_ratio", "mean_ratio"]
        return [*names, *(self.kl_names if self._has_kl else ())]

    @torch.no_grad()
    def add_reference(self, tensordict: TensorDictBase, *, minibatch: int = 256) -> TensorDictBase:
        """Writes the reference's distribution parameters under ``"reference"``.

        Call it once per batch of data, before the update epochs.

        Args:
            tensordict: decisions with the policy's inputs, any batch size.
            minibatch: decisions per forward pass.

        Returns:
            The same tensordict.

        Raises:
            ValueError: if the loss has no reference actor.
        """
        reference = self.reference_actor
        if reference is None:
            raise ValueError("this loss has no reference: pass reference_actor when you build it.")
        if not tensordict.batch_size.numel():
            return tensordict
        flat = tensordict.select(*reference.in_keys, *self._actions, strict=False).reshape(-1)
        with self._as_reference():
            pieces = [
                self._stored.read(reference, piece, self._actions)
                for piece in flat.split(minibatch)
            ]
        found = torch.cat(pieces).reshape(tensordict.batch_size)
        tensordict.set(self.tensor_keys.reference, found)
        return tensordict

    @torch.no_grad()
    def log_ratio(self, tensordict: TensorDictBase, *, minibatch: int = 256) -> Tensor:
        """How much more probable the policy makes the data's actions now than when it chose them.

        Args:
            tensordict: decisions [N] with the policy's inputs, action and log-probability.
            minibatch: decisions per forward pass.

        Returns:
            Log-probability now minus that in the data, float32 [N].
        """
        if not tensordict.batch_size.numel():
            return torch.zeros(0, device=tensordict.device)
        pieces = [piece.copy() for piece in tensordict.reshape(-1).split(minibatch)]
        delayed: bool = self.delay_actor  # type: ignore[has-type]
        weigh = super()._log_weight
        self.delay_actor = False  # or the ratio is to the proximal policy
        try:
            ratios = [weigh(piece, piece.shape)[0] for piece in pieces]
        finally:
            self.delay_actor = delayed
        return torch.cat(ratios).squeeze(-1)

    @dispatch(source="_dispatched_keys")
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the loss terms.

        Args:
            tensordict: decisions with action, log-probability, ``"advantage"``,
                ``"value_target"`` (with a critic) and ``"reference"``.

        Returns:
            The terms of ClipPPOLoss and, unless ``kl_coeff`` was 0 at construction, ``"loss_kl"``
            (coefficient times divergence) and ``"kl_reference"`` (mean divergence, in nats per
            decision).

        Raises:
            KeyError: if the reference's distribution is missing.
        """
        if not self._has_kl:
            return super().forward(tensordict)
        if tensordict.get(self.tensor_keys.reference, None) is None:
            raise KeyError(
                f"kl_coeff is {float(self.kl_coeff):g}, and the data hold no reference "
                f"distribution at {self.tensor_keys.reference!r}: call add_reference(tensordict) "
                "once before the update epochs, or set kl_coeff=0."
            )
        try:
            out = super().forward(tensordict)
            kl = cast(Tensor, self._kl)
        finally:
            self._kl = None
        term, measured = self.kl_names
        out.set(term, self.kl_coeff * self._reduce_loss(kl, tensordict).squeeze(-1))
        out.set(measured, self._reduce_loss(kl.detach(), tensordict, reduction="mean"))
        return out

    def adapt_kl(self, kl: float | Tensor) -> float:
        """Moves the coefficient towards the target divergence; call it once per iteration.

        The coefficient doubles above 1.5 times the target, halves below the target divided by
        1.5, and stays inside ``kl_bounds``. It is a buffer, so checkpoints keep it. With a
        ``kl_controller`` that rule takes the place of this one.

        Source: Schulman et al. 2017, "PPO", section 4.

        Args:
            kl: mean divergence of the iteration, ``"kl_reference"``.

        Returns:
            The new coefficient.

        Raises:
            ValueError: if the divergence is not finite.
        """
        kl = float(kl)
        if not math.isfinite(kl):
            raise ValueError(f"kl must be finite, got {kl}: the policy diverged before this step.")
        if not (self._has_kl and self.kl_coeff):  # off, or switched off
            return float(self.kl_coeff)
        if self.kl_controller is not None:
            controller = self.kl_controller
            controller.coef = float(self.kl_coeff)
            # TorchRL's controllers read the divergence's part of the reward, -coefficient * KL.
            coeff = float(controller.update([-controller.coef * kl]))
            self.kl_coeff.fill_(coeff).clamp_(*self.kl_bounds)
        elif self.kl_target is not None:
            factor = 1.0
            if kl > 1.5 * self.kl_target:
                factor = 2.0
            elif kl < self.kl_target / 1.5:
                factor = 0.5
            self.kl_coeff.mul_(factor).clamp_(*self.kl_bounds)
        return float(self.kl_coeff)

    @property
    def _actions(self) -> list[NestedKey]:
        action = self.tensor_keys.action
        return action if isinstance(action, list) else [action]

    @property
    def _dispatched_keys(self) -> list[NestedKey]:
        """What keyword arguments may name: what has to be there, and what may be."""
        optional = [*optional_keys(self.actor_network), self.tensor_keys.advantage]
        if self._has_critic:
            optional.append(self.tensor_keys.value_target)
        return list(dict.fromkeys([*self.in_keys, *optional]))

    def _set_in_keys(self) -> None:
        super()._set_in_keys()
        stored = self.__dict__.get("_stored")
        if stored is None:  # TorchRL asks before this loss is built
            return
        absent = {*optional_keys(self.actor_network), *stored.parameters}
        absent |= {unravel_key(("next", key)) for key in absent}
        needed = [key for key in self._in_keys if key not in absent]
        if self.critic_network is None:
            needed = [key for key in needed if not (isinstance(key, tuple) and key[0] == "next")]
            needed.append(self.tensor_keys.advantage)
        if self._has_kl:
            place = self.tensor_keys.reference
            needed += [unravel_key((place, key)) for key in stored.keys]
        self._in_keys = needed

    def _log_weight(
        self, tensordict: TensorDictBase, adv_shape: torch.Size
    ) -> tuple[Tensor, Distribution, Tensor, Tensor | None]:
        out: tuple[Tensor, Distribution, Tensor, Tensor | None]
        out = super()._log_weight(tensordict, adv_shape)
        if self._has_kl:
            log_weight, current, _, correction = out
            self._kl = self._stored.divergence(
                self.actor_network,
                current,
                log_weight if correction is None else log_weight + correction,
                tensordict,
                place=self.tensor_keys.reference,
                actions=self._actions,
                batch_dims=len(adv_shape),
            ).unsqueeze(-1)
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> RFTFPPOLoss:
        super()._apply(fn, *args, **kwargs)
        if self.reference_actor is not None and self._as_reference is nullcontext:
            self.reference_actor._apply(fn, *args, **kwargs)
        return self


def _frozen_copy(actor: nn.Module) -> nn.Module:
    return copy.deepcopy(actor).requires_grad_(False).eval()
