"""Refuse weights that are not finite, before they are written or used."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

MAX_NAMED = 5
ADVICE = "Nothing was written; go back to the last checkpoint, and lower the learning rate."


def check_finite_weights(
    weights: Iterable[tuple[str, Tensor]],
    what: str,
    advice: str = ADVICE,
) -> None:
    """Stop where a weight is NaN or infinite.

    Args:
        weights: names and tensors, as from :meth:`torch.nn.Module.named_parameters`.
        what: whose they are, for the error.
        advice: what to do, for the error.

    Raises:
        FloatingPointError: with the names.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> check_finite_weights(layer.named_parameters(), "the policy")
        >>> _ = torch.nn.init.constant_(layer.weight, float("nan"))
        >>> check_finite_weights(layer.named_parameters(), "the policy")
        Traceback (most recent call last):
            ...
        FloatingPointError: the policy has weights that are not finite: weight. Nothing was \
written; go back to the last checkpoint, and lower the learning rate.
    """
    bad = [name for name, value in weights if not bool(value.detach().isfinite().all())]
    if bad:
        more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        raise FloatingPointError(
            f"{what} has weights that are not finite: {', '.join(bad[:MAX_NAMED])}{more}. {advice}"
        )
