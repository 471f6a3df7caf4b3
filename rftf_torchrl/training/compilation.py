"""torch.compile for the parts of a policy, where this machine can."""

from __future__ import annotations

import logging

import torch
from torch import nn

logger = logging.getLogger(__name__)


def compile_module(
    module: nn.Module, *, backend: str = "inductor", dynamic: bool | None = None
) -> bool:
    """Compiles a module in place, or logs why this machine cannot and leaves it as it is.

    Its parameters keep their names. Compile what is called often with few shapes: a flow policy's
    velocity network, a backbone on a GPU. A compiled and an uncompiled module round differently:
    compile before collection, so that PPO's ratio starts at 1. Copies of the module, such as a
    loss's reference, are not compiled.

    Args:
        module: the module.
        backend: as of :func:`torch.compile`; ``"inductor"`` needs a C++ compiler on a CPU, Triton
            on a GPU.
        dynamic: as of :func:`torch.compile`.

    Returns:
        Whether the module is compiled.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> compile_module(layer, backend="eager")
        True
    """
    first = next(module.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    try:
        probe = torch.compile(torch.sin, backend=backend)
        probe(torch.zeros(4, device=device))
    except Exception as error:  # the compiler raises anything: it is named and nothing is lost
        logger.warning(
            "%s stays uncompiled: torch.compile with backend %r fails here (%s: %s)",
            type(module).__name__,
            backend,
            type(error).__name__,
            " ".join(str(error).split())[:200],
        )
        return False
    module.compile(backend=backend, dynamic=dynamic)
    return True
