"""The device and the precision that a run computes with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from rftf_torchrl.errors import UserError


def resolve_device(name: str = "auto") -> torch.device:
    """Turn a word into a device that this machine has.

    Args:
        name: ``"auto"`` (a GPU if there is one, else the CPU), or a Torch device such as ``"cpu"``,
            ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Returns:
        The device.

    Raises:
        ValueError: where the word is no device.
        UserError: where this machine lacks it.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"Device {name!r} is not known: use 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps'."
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"Device {name!r} was asked for, but Torch sees {count} CUDA devices here: use "
                "'auto' or 'cpu', or install a CUDA build of Torch."
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            f"Device {name!r} was asked for, but Torch sees no MPS device here: use 'auto' or "
            "'cpu'."
        )
    return device


def autocast(device: torch.device | str, precision: str = "auto") -> AbstractContextManager[object]:
    """The context that a forward pass runs in.

    Args:
        device: where the forward pass runs.
        precision: ``"fp32"``; ``"bf16"``; or ``"auto"``, which is bf16 on a CUDA device that has it
            and fp32 elsewhere.

    Returns:
        A context manager.

    Raises:
        ValueError: at another word for the precision.
        UserError: at ``"bf16"`` on a CUDA device without it.

    Example:
        >>> with autocast("cpu", "bf16"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision is {precision!r}, expected 'auto', 'fp32' or 'bf16'.")
    device = torch.device(device)
    on_cuda = device.type == "cuda"
    has_bf16 = on_cuda and torch.cuda.is_bf16_supported()
    if precision == "bf16" and on_cuda and not has_bf16:
        raise UserError(f"{device} has no bf16: use precision 'fp32' or 'auto'.")
    if precision == "bf16" or (precision == "auto" and has_bf16):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
