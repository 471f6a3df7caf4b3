"""Fill a module from a checkpoint that has other names, or the checkpoint from the module."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.weights_fit import check_weights_fit


@dataclass(frozen=True)
class Source:
    """Where a parameter comes from.

    Attributes:
        name: name in the checkpoint.
        third: which third of its rows; None for all.
        transpose: whether it is stored transposed.
    """

    name: str
    third: int | None = None
    transpose: bool = False

    def under(self, prefix: str) -> Source:
        """The same source in a checkpoint that holds it under a prefix."""
        return replace(self, name=prefix + self.name)

    def read(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The parameter, in the memory of the checkpoint's."""
        value = tensors[self.name]
        if self.third is not None:
            value = value.chunk(3)[self.third]
        return value.T if self.transpose else value

    def stored_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """The shape in the checkpoint of a parameter that has this shape here."""
        stored = tuple(shape)
        if self.third is not None:
            stored = (3 * stored[0], *stored[1:])
        return stored[::-1] if self.transpose else stored


def load_tensors(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    sources: Mapping[str, Source],
    *,
    unused: tuple[str, ...] = (),
    where: str,
) -> None:
    """Copies a checkpoint into a module.

    Args:
        module: what to fill.
        tensors: the checkpoint.
        sources: for each name in the module's state dict that is to be filled, its source.
        unused: beginnings of names in the checkpoint that are known and left out.
        where: the checkpoint's name in errors.

    Raises:
        ValueError: if a key is missing, unexpected or of another shape; all are listed, and
            nothing is copied.
    """
    own = _own_that_fit(module, tensors, sources, unused, where)
    with torch.no_grad():
        for name, source in sources.items():
            own[name].copy_(source.read(tensors))


def store_tensors(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    sources: Mapping[str, Source],
    *,
    unused: tuple[str, ...] = (),
    where: str,
) -> None:
    """Copies a module into a checkpoint, in place; see :func:`load_tensors`."""
    own = _own_that_fit(module, tensors, sources, unused, where)
    with torch.no_grad():
        for name, source in sources.items():
            source.read(tensors).copy_(own[name])


def _own_that_fit(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    sources: Mapping[str, Source],
    unused: tuple[str, ...],
    where: str,
) -> dict[str, Tensor]:
    """The module's state dict, where it is one of the checkpoint's shapes."""
    own = module.state_dict()
    known = {name: value for name, value in tensors.items() if not name.startswith(unused)}
    check_weights_fit(
        stored_shapes(own, sources),
        {**known, **{s.name: tensors[s.name] for s in sources.values() if s.name in tensors}},
        where,
        whose="this architecture",
        advice="Build the policy with the sizes that the checkpoint was trained with.",
    )
    return own


def stored_shapes(
    own: Mapping[str, Tensor], sources: Mapping[str, Source]
) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a checkpoint must have."""
    return {s.name: s.stored_shape(own[name].shape) for name, s in sources.items()}


def read_file(path: str | os.PathLike[str], *, weights_only: bool = True) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds other things than tensors and plain containers, or is damaged.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no checkpoint at {path}: download it first, see the how-to page.")
    try:
        return torch.load(path, map_location="cpu", weights_only=weights_only)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no checkpoint of tensors alone: {error}. If you trust whoever wrote it, "
            "pass weights_only=False, which runs code from the file."
        ) from error
    except (EOFError, RuntimeError, OSError, KeyError) as error:
        why = str(error) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({why}): download it again."
        ) from error


def entry(payload: Any, name: str, where: str) -> dict[str, Tensor]:
    """One of the state dicts that a checkpoint holds.

    Raises:
        ValueError: if it is not there.
    """
    if not isinstance(payload, Mapping) or not isinstance(payload.get(name), Mapping):
        found = sorted(map(str, payload)) if isinstance(payload, Mapping) else type(payload)
        raise ValueError(f"{where} holds no {name!r}, it holds {found}: it is another checkpoint.")
    return dict(payload[name])


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors, a prefix cut from the names that have it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


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
