"""Seeds: every random draw of a run follows from one number."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import torch

SEED_BITS = 63


def derive_seed(run_seed: int, *path: str | int) -> int:
    r"""Derive the seed of one purpose from the seed of the run.

    :math:`\text{seed} = \text{BLAKE2b}(\text{run\_seed}, \text{path}) \bmod 2^{63}`. The result
    depends on nothing else, so that a resumed run draws what an uninterrupted one would have drawn.

    Args:
        run_seed: the seed of the run.
        *path: the purpose, such as ``"collect", iteration``. ``1`` and ``"1"`` differ.

    Returns:
        An integer in [0, 2**63).

    Raises:
        TypeError: at a part that is neither a string nor an integer.

    Example:
        >>> derive_seed(0, "collect", 7)
        717141503193530342
        >>> derive_seed(0, "collect", 8) == derive_seed(0, "collect", 7)
        False
    """
    parts = (run_seed, *path)
    for position, part in enumerate(parts):
        allowed = (int, str) if position else (int,)
        if type(part) not in allowed:
            names = " or ".join(kind.__name__ for kind in allowed)
            where = f"path[{position - 1}]" if position else "run_seed"
            raise TypeError(f"{where} is {part!r}, expected {names}.")
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and Torch (all devices), each with its own derived seed.

    Args:
        seed: the seed of the run.

    Example:
        >>> seed_everything(0)
        >>> first = torch.rand(())
        >>> seed_everything(0)
        >>> bool(torch.rand(()) == first)
        True
    """
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
    torch.manual_seed(derive_seed(seed, "torch"))
