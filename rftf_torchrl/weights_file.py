"""Tensors and texts in one safetensors file that knows its own digest.

Equal contents are equal bytes: the header is written here, by the format that
https://huggingface.co/docs/safetensors documents, because the library's own has its texts in the
order of a hash map.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rftf_torchrl.files import whole_file

HEADER_DIGEST = "header_sha256"
DATA_DIGEST = "data_sha256"
_UNKNOWN = "0" * 64
_TIED = "tied"
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors and texts to one safetensors file, whole or not at all.

    A tensor that has several names (an output layer tied to the embeddings, say) is stored once.

    Args:
        path: the file, in an existing folder.
        tensors: by name.
        metadata: texts by name.

    Raises:
        TypeError: at a tensor whose dtype safetensors does not know.
        OSError: where the file cannot be written, or has no room on the disk.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from safetensors.torch import load_file
        >>> file = Path(tempfile.mkdtemp()) / "one.safetensors"
        >>> write_safetensors(file, {"weight": Tensor([1.0])}, {"format": "mine"})
        >>> load_file(file)
        {'weight': tensor([1.])}
    """
    kept, tied = _distinct(tensors)
    entries: dict[str, Any] = {}
    stop = 0
    for name, value in kept.items():
        if value.dtype not in _DTYPES:
            raise TypeError(f"{name!r} is {value.dtype}, which a safetensors file cannot hold.")
        start, stop = stop, stop + value.nbytes
        entries[name] = {
            "dtype": _DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, stop],
        }
    data = hashlib.sha256()
    for value in kept.values():
        data.update(_content(value))
    digests = {DATA_DIGEST: data.hexdigest(), HEADER_DIGEST: _UNKNOWN}
    texts = {**metadata, _TIED: json.dumps(tied), **digests}
    header = _aligned(json.dumps({"__metadata__": dict(sorted(texts.items())), **entries}))
    header = header.replace(_UNKNOWN.encode(), hashlib.sha256(header).hexdigest().encode())
    with whole_file(path, len(header) + stop) as hidden, hidden.open("wb") as file:
        file.write(header)
        for value in kept.values():
            file.write(_content(value))


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and texts, once the digest of the file is the right one.

    Args:
        path: the file; one without digests, of an earlier version or another library, is taken as
            it is.

    Returns:
        The tensors, tied ones under all their names, and the texts.

    Raises:
        ValueError: where the file is damaged.
    """
    metadata = _read_metadata(path)
    if DATA_DIGEST in metadata:
        data = hashlib.sha256()
        with open(path, "rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            for block in iter(lambda: file.read(2**22), b""):
                data.update(block)
        if data.hexdigest() != metadata[DATA_DIGEST]:
            raise _damaged(path, "its tensors differ from their digest")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, kept in json.loads(metadata.get(_TIED, "{}")).items():
        tensors[name] = tensors[kept]
    return tensors, metadata


def made_by_entry(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """Settings that made a file, as an entry of its metadata."""
    return {} if settings is None else {"made_by": json.dumps(settings)}


def read_made_by(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the settings that made a policy or a value model.

    Args:
        path: the safetensors file.

    Returns:
        Values by full name, such as ``"env.chunk_size"``; empty where the file says none.

    Raises:
        ValueError: where the file's description is damaged.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> file = Path(tempfile.mkdtemp()) / "one.safetensors"
        >>> write_safetensors(file, {"weight": Tensor([1.0])}, made_by_entry({"seed": 3}))
        >>> read_made_by(file)
        {'seed': 3}
    """
    found: dict[str, Any] = json.loads(_read_metadata(path).get("made_by", "{}"))
    return found


def _read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts of a file, once the digest of its header is the right one."""
    if not Path(path).is_file():
        is_folder = Path(path).is_dir()
        raise FileNotFoundError(
            f"{path} is a folder, expected a file" if is_folder else f"there is no file {path}"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    if not {HEADER_DIGEST, DATA_DIGEST} & metadata.keys():
        return metadata
    with open(path, "rb") as opened:
        size = opened.read(8)
        header = size + opened.read(int.from_bytes(size, "little"))
    stored = metadata.get(HEADER_DIGEST, "")
    unsigned = header.replace(stored.encode(), _UNKNOWN.encode()) if stored else header
    if hashlib.sha256(unsigned).hexdigest() != stored:
        raise _damaged(path, "its description differs from its digest")
    return metadata


def _damaged(path: str | os.PathLike[str], what: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: {what}. Copy it again from where it is whole, or make it again; where "
        f"you changed it yourself, leave out its entries {HEADER_DIGEST} and {DATA_DIGEST}."
    )


def _aligned(text: str) -> bytes:
    """A header with its length before it; the tensors after it begin at a multiple of 8."""
    content = text.encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content


def _content(value: Tensor) -> Any:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _distinct(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors without repetitions, wide ones first, and which names repeat which."""
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[object, ...], str] = {}
    for name, value in tensors.items():
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in seen:
            tied[name] = seen[place]
        else:
            seen[place] = name
            kept[name] = value
    return dict(sorted(kept.items(), key=lambda each: (-each[1].itemsize, each[0]))), tied
