"""Fingerprints of what decides an evaluation: policy, transforms, functions, packages."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
import torch
from torch import nn
from torchrl.envs.transforms import Transform

from rftf_torchrl.evaluation.commits import git_commit
from rftf_torchrl.leftovers import temporary_folder

_PLAIN = (type(None), bool, int, float, complex, str)
_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType)
_SMALL = (bytes, Path, Enum, torch.dtype, torch.device, range, slice, np.generic, *_FUNCTIONS)


def transform_label(transform: Transform | None) -> str | None:
    """Name a transform by its class and a fingerprint of what it is made of.

    The fingerprint is of keys, weights and public attributes, of those attributes' own, and so on;
    of tokenizers and image processors, of the files that they save. Private attributes count as
    caches, where there are public ones.

    Args:
        transform: a policy's ``observation_transform()``; ``None`` where it has none.

    Returns:
        The label, the same in every process; ``None`` without a transform.

    Example:
        >>> from torchrl.envs.transforms import StepCounter
        >>> transform_label(StepCounter(3)) == transform_label(StepCounter(3))
        True
        >>> transform_label(StepCounter(3)) == transform_label(StepCounter(4))
        False
    """
    if transform is None:
        return None
    digest = sha256(repr(_described(transform, ())).encode()).hexdigest()
    return f"{type(transform).__name__} ({digest[:16]})"


def _described(value: Any, above: tuple[int, ...]) -> Any:
    """The value as nested tuples of plain values, the same in every process."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, bytes):
        return sha256(value).hexdigest()
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return _array(value)
    if isinstance(value, _FUNCTIONS):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Path):
        return str(value)
    name = type(value).__qualname__
    if isinstance(value, Enum):
        return name, value.name
    if id(value) in above:
        return name
    above = (*above, id(value))
    if isinstance(value, Mapping):
        items = [(_described(k, above), _described(v, above)) for k, v in value.items()]
        return name, tuple(sorted(items, key=repr))
    if isinstance(value, Set):
        return name, tuple(sorted((_described(item, above) for item in value), key=repr))
    if isinstance(value, (list, tuple)):
        return tuple(_described(item, above) for item in value)
    parts = _parts(value)
    if parts is None:
        return name, re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    return name, _described(parts, above)


def _parts(value: Any) -> dict[str, Any] | None:
    """What an object is made of, by name; None where only its text says it."""
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, types.MethodType):
        return {"func": value.__func__, "self": value.__self__}
    if hasattr(value, "save_pretrained"):
        with temporary_folder() as folder:
            value.save_pretrained(folder)
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    if not hasattr(value, "__dict__"):
        return None
    attributes = vars(value)
    parts = {name: part for name, part in attributes.items() if not name.startswith("_")}
    parts = parts or dict(attributes)
    if isinstance(value, nn.Module):
        parts.pop("training", None)
        parts |= {"children": dict(value.named_children()), "weights": dict(value.state_dict())}
    if isinstance(value, Transform):
        parts |= {"in_keys": value.in_keys, "out_keys": value.out_keys}
    return parts


def _array(value: Any) -> tuple[str, tuple[int, ...], str]:
    array = torch.as_tensor(value).detach().cpu().contiguous()
    content = array.reshape(-1).view(torch.uint8).numpy().tobytes()
    return str(array.dtype), tuple(array.shape), sha256(content).hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether an attribute is a setting: tensors may be caches, objects may hold them."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, partial):
        return all(map(_is_plain, [value.func, value.args, value.keywords]))
    if isinstance(value, (list, tuple, Set)):
        return all(map(_is_plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, field.name)) for field in fields(value))
    return isinstance(value, (*_PLAIN, *_SMALL))


def policy_digest(policy: torch.nn.Module) -> str:
    """A fingerprint of a policy's weights, and of its modules' classes and plain attributes.

    The attributes count, and containers, dataclasses and bound arguments of plain values, and
    buffers that are not saved, because equal weights can act differently: with other denoising
    steps, or another scale. Other tensors and objects do not, as they may be caches.
    """
    digest = sha256()
    for name, module in policy.named_modules():
        plain = [
            (attribute, _described(value, ()))
            for attribute, value in vars(module).items()
            if attribute != "training" and attribute[0] != "_" and _is_plain(value)
        ]
        digest.update(repr((name, type(module).__qualname__, sorted(plain))).encode())
    for name, value in {**dict(policy.named_buffers()), **policy.state_dict()}.items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def function_name(function: Callable[..., Any]) -> str:
    """A function with its bound arguments, without addresses in memory."""
    if isinstance(function, partial):
        given = [repr(_described(value, ())) for value in function.args]
        given += [f"{name}={_described(value, ())!r}" for name, value in function.keywords.items()]
        return f"{function_name(function.func)}({', '.join(given)})"
    name = getattr(function, "__qualname__", None)
    return repr(_described(function, ())) if name is None else str(name)


def package_versions(*packages: str, clones: tuple[str, ...] = ()) -> dict[str, str | None]:
    """Versions of Python and of the packages that decide the results, and commits of clones.

    This library's version is the same between releases, and so may be that of others that run from
    clones; their commits are ``None`` where they do not.

    Args:
        packages: further ones than this library, torch, torchrl and numpy.
        clones: those of them that run from clones.
    """
    found: dict[str, str | None] = {"python": python_version()}
    for name in ("rftf-torchrl", "torch", "torchrl", "numpy", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    commits = {name: git_commit(name.replace("-", "_")) for name in ("rftf-torchrl", *clones)}
    return found | {f"{name} commit": commit for name, commit in commits.items()}
