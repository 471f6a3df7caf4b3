"""Find the network inside a policy."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def only_module(module: nn.Module, kind: type[Network]) -> Network:
    """The one submodule of a class.

    Raises:
        TypeError: if there is none.
    """
    for child in module.modules():
        if isinstance(child, kind):
            return child
    raise TypeError(
        f"there is no {kind.__name__} in this {type(module).__name__}: build the policy from its "
        "spec."
    )
