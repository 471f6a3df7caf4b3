"""Stop where a policy's network writes numbers that are not finite."""

from __future__ import annotations

import torch
from torch import Tensor


def check_finite_output(output: Tensor, what: str) -> Tensor:
    """Returns parameters of a policy's distribution, or raises where they are not finite.

    One reduction. It is left out where Python cannot look at numbers: under ``torch.compile``,
    inside ``torch.vmap``, on the meta device and while a CUDA graph is captured.

    Args:
        output: any shape.
        what: their name in the error, a plural.

    Raises:
        FloatingPointError: if one is NaN or infinite.

    Example:
        >>> check_finite_output(torch.zeros(2), "means")
        tensor([0., 0.])
    """
    if can_be_read(output) and not bool(torch.isfinite(output).all()):
        count = int((~torch.isfinite(output)).sum())
        raise FloatingPointError(
            f"{count} of {output.numel()} {what} of the policy are not finite: its weights "
            "diverged, an observation is not finite, or its precision is too low for this model "
            "(try bfloat16 or float32)."
        )
    return output


def can_be_read(output: Tensor) -> bool:
    """Whether Python may look at the numbers."""
    if torch.compiler.is_compiling() or output.is_meta:
        return False
    if torch._C._functorch.is_batchedtensor(output):
        return False
    return not (output.is_cuda and torch.cuda.is_current_stream_capturing())
