"""Stops before a number that is not finite reaches the optimizer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from rftf_torchrl.training.processes import full

LOSS_PREFIX = "loss_"
MAX_NAMED = 5


def stop_on_non_finite_loss(losses: TensorDictBase) -> None:
    """Stop where a loss is NaN or infinite; one such number would make every parameter NaN.

    Only entries whose name starts with ``"loss_"`` count: diagnostics such as an explained variance
    may be undefined.

    Args:
        losses: what a :class:`torchrl.objectives.LossModule` returns.

    Raises:
        FloatingPointError: with the keys and the values that are not finite.
        KeyError: where no entry is a loss.

    Example:
        >>> from tensordict import TensorDict
        >>> stop_on_non_finite_loss(TensorDict({"loss_critic": torch.tensor(float("nan"))}))
        Traceback (most recent call last):
            ...
        FloatingPointError: The loss is not finite: loss_critic = nan. No parameter was changed; \
look at the rewards, advantages and log-probabilities of this batch.
    """
    found = {key: value for key, value in losses.items() if str(key).startswith(LOSS_PREFIX)}
    if not found:
        raise KeyError(f"No entry starts with {LOSS_PREFIX!r} among {sorted(losses.keys())}.")
    bad = {key: value for key, value in found.items() if not bool(torch.isfinite(value).all())}
    if bad:
        named = ", ".join(f"{key} = {_first_bad(value)}" for key, value in bad.items())
        raise FloatingPointError(
            f"The loss is not finite: {named}. No parameter was changed; look at the rewards, "
            "advantages and log-probabilities of this batch."
        )


def clip_and_check_gradients(
    named_parameters: Iterable[tuple[str, nn.Parameter]], max_norm: float
) -> Tensor:
    r"""Scale the gradients to a norm of at most ``max_norm``, unless one is not finite.

    :math:`g \leftarrow g \cdot \min(1, \text{max\_norm} / \lVert g \rVert_2)`. Call it between
    ``backward()`` and the optimizer's step.

    Args:
        named_parameters: as from :meth:`torch.nn.Module.named_parameters`. Parameters without a
            gradient are passed over.
        max_norm: the largest norm over all gradients together; infinity only checks.

    Returns:
        The norm before scaling, float32 [].

    Raises:
        FloatingPointError: with the parameters whose gradient is not finite.
        ValueError: at ``max_norm`` of 0 or less, or where no parameter has a gradient.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> layer.weight.grad = torch.full((1, 1), 4.0)
        >>> clip_and_check_gradients(layer.named_parameters(), max_norm=1.0)
        tensor(4.)
        >>> bool(torch.isclose(layer.weight.grad, torch.ones(1, 1)).all())
        True
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}, expected a number above 0.")
    named = [(name, p, p.grad) for name, p in named_parameters if p.grad is not None]
    if not named:
        raise ValueError("No parameter has a gradient: call backward() on the loss first.")
    norm = _total_norm([gradient for _, _, gradient in named])
    if not bool(torch.isfinite(norm)):
        bad = [name for name, _, grad in named if not bool(full(torch.isfinite(grad).all()))]
        what = "not finite" if bad else "finite, but their norm overflows"
        bad = bad or [name for name, _, _ in named]
        more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        raise FloatingPointError(
            f"The gradients of {', '.join(bad[:MAX_NAMED])}{more} are {what}. No parameter was "
            "changed; lower the learning rate or look at this batch."
        )
    for divided in (False, True):
        those = [p for _, p, gradient in named if isinstance(gradient, DTensor) is divided]
        clip_grads_with_norm_(those, max_norm, norm)
    return norm


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """Of all processes together, where FSDP has divided some."""
    divided = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    if not divided:
        return get_total_norm(gradients)
    own = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    return get_total_norm([full(get_total_norm(divided)), *own])


def _first_bad(value: Tensor) -> float:
    return float(value.detach()[~torch.isfinite(value)].flatten()[0])
