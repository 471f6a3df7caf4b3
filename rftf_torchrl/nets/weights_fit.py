"""Whether a file's weights are those of a module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from torch import Tensor


def check_weights_fit(
    expected: Mapping[str, Sequence[int]],
    weights: Mapping[str, Tensor],
    source: str | os.PathLike[str],
    *,
    whose: str = "the policy",
    advice: str = "",
) -> None:
    """Refuse weights that a module does not have, lacks, or has in another shape.

    Args:
        expected: shape of each weight by its name in the file.
        weights: those of the file.
        source: the file, for the error.
        whose: what the weights should be of, for the error.
        advice: what to do, for the error.

    Raises:
        ValueError: listing every difference.

    Example:
        >>> import torch
        >>> check_weights_fit({"weight": (1, 2)}, {"weight": torch.zeros(1, 3)}, "policy.pt")
        Traceback (most recent call last):
            ...
        ValueError: the weights in policy.pt are not those of the policy:
          - weight: shape (1, 3), expected (1, 2)
    """
    problems = [f"missing: {name}" for name in expected if name not in weights]
    problems += [f"unexpected: {name}" for name in weights if name not in expected]
    problems += [
        f"{name}: shape {tuple(weights[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != tuple(shape)
    ]
    if problems:
        listed = "".join(f"\n  - {line}" for line in problems)
        end = f"\n{advice}" if advice else ""
        raise ValueError(f"the weights in {source} are not those of {whose}:{listed}{end}")
