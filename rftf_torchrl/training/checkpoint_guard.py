"""The allowed content of a checkpoint archive, so that loading it can never run code."""

from __future__ import annotations

import json
import re
import zipfile

import torch

from rftf_torchrl.data.memory_map import DTYPES, meta_problems

ADAPTERS = ("torchrl.state_dict", "torchrl.json")
MEMBERS = re.compile(
    r"manifest\.json|components/\d{4}-\w+/(state\.json|value\.json|state/meta\.json"
    r"|state/tensor_\d+\.memmap)"
)


def foreign_parts(archive: zipfile.ZipFile) -> list[str]:
    """List the members of an archive that a checkpoint of ours does not have.

    TorchRL reads a component by the adapter that the manifest names, and TensorDict builds the
    class that ``meta.json`` names: a pickle could be among both. Ours are tensors and JSON.

    Args:
        archive: the opened archive.

    Returns:
        One sentence for each.
    """
    problems = [f"it holds {name!r}" for name in archive.namelist() if not MEMBERS.fullmatch(name)]
    manifest = json.loads(archive.read("manifest.json"))
    for name, component in manifest["components"].items():
        if component.get("adapter") not in ADAPTERS:
            problems.append(f"component {name!r} is read by {component.get('adapter')!r}")
    for name in archive.namelist():
        if name.endswith("/meta.json"):
            problems += meta_problems(json.loads(archive.read(name)), name)
    return problems


def tensor_with_nan(archive: zipfile.ZipFile) -> str | None:
    """The first tensor with a NaN; an infinity may be a mask's."""
    for member in archive.namelist():
        if not member.endswith("/meta.json"):
            continue
        folder = member.removesuffix("meta.json")
        for name, entry in json.loads(archive.read(member)).items():
            dtype = DTYPES[entry["dtype"]] if isinstance(entry, dict) else torch.bool
            if not dtype.is_floating_point or 0 in entry["shape"]:
                continue
            content = bytearray(archive.read(f"{folder}{name}.memmap"))
            if torch.frombuffer(content, dtype=dtype).isnan().any():
                return f"{folder}{name}"
    return None
