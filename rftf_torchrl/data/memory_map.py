"""Open memory-mapped frames: tensors alone, no pickle and no class that a file names."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from tensordict import MemoryMappedTensor, TensorDict
from torch import Tensor

META_FILE = "meta.json"
TENSORDICT = "<class 'tensordict._td.TensorDict'>"
DTYPES: Mapping[str, torch.dtype] = {
    str(dtype): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    )
}


def open_frames(folder: Path) -> tuple[TensorDict, list[str]]:
    """Map the tensors of a folder that :meth:`tensordict.TensorDict.memmap` wrote.

    ``TensorDict.load_memmap`` would unpickle what a changed ``meta.json`` names, and read the
    missing end of a truncated file as zeros. This reads tensors of the known dtypes only.

    Args:
        folder: the folder.

    Returns:
        The frames, and one sentence for each file that is missing, of another size, read-only, or
        of a kind that frames do not have; of these, the frames lack the tensors.

    Example:
        >>> open_frames(Path("no-such-folder"))[1]
        ['no-such-folder/meta.json: missing']
    """
    meta, problems = read_meta(folder)
    length = meta.get("shape", [])
    if not _is_shape(length):
        return TensorDict(), [f"{folder.name}/{META_FILE}: the shape is {length!r}"]
    frames = TensorDict(batch_size=length)
    for name, entry in meta.items():
        if not isinstance(entry, Mapping):
            continue
        if "dtype" in entry:
            found = _open_tensor(folder, name, entry)
            part: Tensor | TensorDict | None = None
            if isinstance(found, str):
                problems.append(f"{folder.name}/{found}")
            else:
                part = found
        else:
            part, wrong = open_frames(folder / name)
            problems += [f"{folder.name}/{line}" for line in wrong]
        if part is not None and part.shape[: len(length)] == tuple(length):
            frames.set(name, part)
        elif part is not None:
            problems.append(f"{folder.name}/{name}: {tuple(part.shape)}, expected {length} first")
    return frames, problems


def read_meta(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The description of a folder of tensors, and what is wrong with it."""
    file = folder / META_FILE
    where = f"{folder.name}/{META_FILE}"
    if not file.is_file():
        return {}, [f"{where}: missing"]
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return {}, [f"{where}: unreadable JSON ({error})"]
    return (meta, wrong) if not (wrong := meta_problems(meta, where)) else ({}, wrong)


def meta_problems(meta: Any, where: str) -> list[str]:
    """List what in a description is neither a plain tensor nor a TensorDict.

    Args:
        meta: what the JSON file held.
        where: its name, to start each sentence with.
    """
    if not isinstance(meta, dict):
        return [f"{where}: is no description of tensors"]
    problems = []
    if meta.get("_type") != TENSORDICT:
        problems.append(
            f"{where}: names the class {meta.get('_type')!r}, which is not read: expected "
            f"{TENSORDICT!r}"
        )
    for name, entry in meta.items():
        if os.sep in name or name in ("", ".", ".."):
            problems.append(f"{where}: the name {name!r} leaves the folder")
        if isinstance(entry, dict) and "dtype" in entry:
            if entry["dtype"] not in DTYPES or entry.get("is_nested"):
                problems.append(f"{where}: {name!r} is no plain tensor of a known dtype: {entry}")
            elif not _is_shape(entry.get("shape")):
                problems.append(f"{where}: {name!r} has the shape {entry.get('shape')!r}")
    return problems


def _open_tensor(folder: Path, name: str, entry: Mapping[str, Any]) -> Tensor | str:
    file = folder / f"{name}.memmap"
    dtype, shape = DTYPES[entry["dtype"]], torch.Size(entry["shape"])
    expected = math.prod(shape) * dtype.itemsize
    size = file.stat().st_size if file.is_file() else None
    if size is None:
        return f"{file.name}: missing"
    if size != expected:
        return f"{file.name}: {size} bytes, expected {expected}"
    if not os.access(file, os.R_OK | os.W_OK):
        return (
            f"{file.name}: read-only, but TensorDict maps files for reading and writing: change "
            "its permissions or copy the folder"
        )
    return cast(Tensor, MemoryMappedTensor.from_filename(file, dtype, shape))


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
