"""PPO's clipped surrogate with a KL penalty to the frozen starting policy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule, dispatch
from tensordict.utils import NestedKey, unravel_key
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torchrl.objectives import ClipPPOLoss

from rftf_torchrl import keys
from rftf_torchrl.nets.lora import LoraReference
from rftf_torchrl.settings import Positive, check_value


class RFTFPPOLoss(ClipPPOLoss):
    r"""Clipped PPO that stays near the policy it started from.

    .. math::
        L = L_\mathrm{clip} + L_\mathrm{critic} + L_\mathrm{entropy}
        + c \cdot E\big[ \mathrm{KL}(\pi(\cdot | s) \,\|\, \pi_\mathrm{ref}(\cdot | s)) \big]

    The divergence is in closed form, in nats per decision, and counts executed actions only. The
    reference runs once per batch of data, in :meth:`add_reference`; the update epochs read its
    distribution from the data. The coefficient changes only in :meth:`adapt_kl`, which the recipe
    calls once per iteration.

    Source: Schulman et al. 2017, "PPO", arXiv 1707.06347, eq. 7 and section 4 (adaptive KL); Shu,
    Lin, Wang 2025, "RFTF", arXiv 2505.19767. The rest is :class:`torchrl.objectives.ClipPPOLoss`,
    whose keyword arguments are taken as well.

    Args:
        actor_network: the policy.
        critic_network: the critic; None trains the policy alone.
        reference_actor: the policy to stay near. It is copied, frozen and kept out of
            ``parameters()`` and ``state_dict()``. ``"adapters_off"`` is the policy itself as it is
            now and without its low-rank adapters: no copy but of the other parameters that train
            (:class:`~rftf_torchrl.LoraReference`). A function that returns a context
            manager is called in its place; inside the context, the policy has to be the reference.
            None if the data already hold its distribution.
        kl_coeff: initial coefficient c; 0 switches the penalty off.
        kl_target: divergence that :meth:`adapt_kl` aims at, in nats per decision; None keeps the
            coefficient.
        kl_bounds: smallest and largest coefficient.

    Raises:
        ValueError: if a KL argument is out of its range.

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
    _out_keys: list[str] | None
    default_keys = _AcceptedKeys
    _schedulable_buffers = ClipPPOLoss._schedulable_buffers | {"kl_coeff"}

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        critic_network: TensorDictModule | None = None,
        *,
        reference_actor: ProbabilisticTensorDictSequential
        | Literal["adapters_off"]
        | Callable[[], AbstractContextManager[Any]]
        | None = None,
        kl_coeff: float = 0.1,
        kl_target: float | None = 0.02,
        kl_bounds: tuple[float, float] = (1e-4, 10.0),
        **kwargs: Any,
    ) -> None:
        if "clip_epsilon" in kwargs:
            check_value("clip_epsilon", kwargs["clip_epsilon"], Positive)
        low, high = kl_bounds
        if not 0 < low <= high:
            raise ValueError(f"kl_bounds must be 0 < low <= high, got {tuple(kl_bounds)}.")
        if kl_coeff != 0 and not low <= kl_coeff <= high:
            raise ValueError(
                f"kl_coeff must be 0 (off) or inside kl_bounds {tuple(kl_bounds)}, got {kl_coeff}."
            )
        if kl_target is not None and not kl_target > 0:
            raise ValueError(
                f"kl_target must be above 0, or None to keep kl_coeff: got {kl_target}."
            )
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
        self.kl_target = kl_target
        self.kl_bounds = (float(low), float(high))
        self.register_coeff_buffer("kl_coeff", float(kl_coeff), device=self.entropy_coeff.device)
        # Outside the registered modules: an optimizer over parameters() must not see it.
        self.__dict__["reference_actor"] = reference
        self.__dict__["_as_reference"] = as_reference
        self.__dict__["_distribution"] = None
        self._set_in_keys()

    @property
    def out_keys(self) -> list[str]:
        """Names of the loss terms and diagnostics."""
        if self._out_keys is None:
            of_critic = ("loss_critic", "value_clip_fraction")
            names = [n for n in super().out_keys if self._has_critic or n not in of_critic]
            if self._has_critic and self.log_explained_variance:
                names.insert(names.index("ESS"), "explained_variance")
            if self.kl_coeff > 0:
                names += ["loss_kl", "kl_reference"]
            self._out_keys = names
        return self._out_keys

    @out_keys.setter
    def out_keys(self, values: list[str]) -> None:
        self._out_keys = values

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
        params = _predicted_params(reference)
        flat = tensordict.select(*reference.in_keys, strict=False).reshape(-1)
        with self._as_reference():
            pieces = [
                reference.get_dist_params(piece.copy()).select(*params)
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
        pieces = [piece.copy() for piece in tensordict.reshape(-1).split(minibatch)]
        ratios = [super(RFTFPPOLoss, self)._log_weight(piece, piece.shape)[0] for piece in pieces]
        return torch.cat(ratios).squeeze(-1)

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Computes the loss terms.

        Args:
            tensordict: decisions with action, log-probability, ``"advantage"``,
                ``"value_target"`` (with a critic) and ``"reference"``.

        Returns:
            The terms of ClipPPOLoss and, unless ``kl_coeff`` is 0, ``"loss_kl"`` (coefficient
            times mean divergence) and ``"kl_reference"`` (mean divergence, in nats per decision).

        Raises:
            KeyError: if the reference's distribution is missing.
        """
        if not self.kl_coeff > 0:
            return super().forward(tensordict)
        reference = tensordict.get(self.tensor_keys.reference, None)
        if reference is None:
            raise KeyError(
                f"kl_coeff is {float(self.kl_coeff):g}, and the data hold no reference "
                f"distribution at {self.tensor_keys.reference!r}: call add_reference(tensordict) "
                "once before the update epochs, or set kl_coeff=0."
            )
        try:
            out = super().forward(tensordict)
            current = self.__dict__["_distribution"]
        finally:
            self.__dict__["_distribution"] = None
        params = tensordict.copy().update(reference)
        target = self.actor_network.build_dist_from_params(params)
        kl = kl_divergence(current, target).unsqueeze(-1)
        mean = self._reduce_loss(kl, tensordict).squeeze(-1)
        out.set("loss_kl", self.kl_coeff * mean)
        out.set("kl_reference", mean.detach().mean())
        return out

    def adapt_kl(self, kl: float | Tensor) -> float:
        """Moves the coefficient towards the target divergence; call it once per iteration.

        The coefficient doubles above 1.5 times the target, halves below the target divided by
        1.5, and stays inside ``kl_bounds``. It is a buffer, so checkpoints keep it.

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
        if self.kl_target is not None and self.kl_coeff > 0:
            factor = 1.0
            if kl > 1.5 * self.kl_target:
                factor = 2.0
            elif kl < self.kl_target / 1.5:
                factor = 0.5
            self.kl_coeff.mul_(factor).clamp_(*self.kl_bounds)
        return float(self.kl_coeff)

    def _set_in_keys(self) -> None:
        super()._set_in_keys()
        if self._buffers.get("kl_coeff", 0) > 0:
            self._in_keys += [
                unravel_key((self.tensor_keys.reference, key))
                for key in _predicted_params(self.actor_network)
            ]

    def _log_weight(
        self, tensordict: TensorDictBase, adv_shape: torch.Size
    ) -> tuple[Tensor, Distribution, Tensor, Tensor | None]:
        out: tuple[Tensor, Distribution, Tensor, Tensor | None]
        out = super()._log_weight(tensordict, adv_shape)
        self.__dict__["_distribution"] = out[1]
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> RFTFPPOLoss:
        super()._apply(fn, *args, **kwargs)
        if self.reference_actor is not None and self._as_reference is nullcontext:
            self.reference_actor._apply(fn, *args, **kwargs)
        return self


def _predicted_params(actor: ProbabilisticTensorDictSequential) -> list[NestedKey]:
    """The distribution's parameters that the network writes, without those that the data hold."""
    held = {unravel_key(key) for key in actor.det_part.in_keys}
    written = {unravel_key(key) for key in actor.det_part.out_keys} - held
    return [key for key in map(unravel_key, actor.dist_params_keys) if key in written]


def _frozen_copy(actor: nn.Module) -> nn.Module:
    return copy.deepcopy(actor).requires_grad_(False).eval()
