"""Activations that are computed again in the backward pass instead of kept."""

from __future__ import annotations

from functools import partial

from tensordict.nn import TensorDictModuleBase
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(
    module: nn.Module, layers: type | tuple[type, ...] | None = None
) -> list[str]:
    """Keeps only the inputs of some layers for the backward pass, in place.

    The layers run a second time in the backward pass, which costs about a third more time and saves
    the memory of their activations. Unlike ``gradient_checkpointing_enable`` of transformers, it
    also works in evaluation mode, in which policies run so that dropout is off. Switch a language
    model's key-value cache off, or its layers would fill it twice.

    Args:
        module: any module.
        layers: classes of the layers; None takes the members of each outermost
            :class:`torch.nn.ModuleList` that has at least two (a transformer's blocks).

    Returns:
        The layers' names.

    Raises:
        ValueError: if there is no such layer.

    Example:
        >>> blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        >>> checkpoint_activations(nn.ModuleDict({"blocks": blocks}))
        ['blocks.0', 'blocks.1']
    """
    names: list[str] = []
    for name, child in module.named_modules():
        if name.startswith(tuple(f"{found}." for found in names)):
            continue
        if layers is not None:
            if isinstance(child, layers):
                names.append(name)
        elif _is_stack(child):
            names += [f"{name}.{index}".lstrip(".") for index, _ in enumerate(child.children())]
    if not names:
        wanted = "nn.ModuleList of two or more" if layers is None else str(layers)
        raise ValueError(f"{type(module).__name__} has no layer to checkpoint: no {wanted}.")
    for name in names:
        layer = module.get_submodule(name)
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return names


def _is_stack(module: nn.Module) -> bool:
    """Whether this is a list of layers, and not that of a TensorDictSequential."""
    return (
        isinstance(module, nn.ModuleList)
        and len(module) > 1
        and not any(isinstance(child, TensorDictModuleBase) for child in module)
    )
