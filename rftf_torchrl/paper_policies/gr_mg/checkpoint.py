"""GR-MG's released checkpoints: load one, and write a policy into a copy of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rftf_torchrl.files import whole_file
from rftf_torchrl.paper_policies.blocks.checkpoint import (
    Source,
    entry,
    load_tensors,
    only_module,
    read_file,
    store_tensors,
    without_prefix,
)
from rftf_torchrl.paper_policies.blocks.clip_text import OPENAI_UNUSED, openai_sources
from rftf_torchrl.paper_policies.gr_mg.network import GRMG

_OUR_GROUPS = ("action.", "images.", "progress.")
_UNUSED = tuple(f"text_encoder.{name}" for name in OPENAI_UNUSED)


def load_gr_mg_checkpoint(
    policy: nn.Module, path: str | os.PathLike[str], *, weights_only: bool = True
) -> None:
    """Fills a GR-MG policy from a file of its authors, e.g. ``epoch=47-step=83712.ckpt``.

    The file is Lightning's: its ``"state_dict"`` holds the whole model, image encoder and CLIP
    included, under ``model.<name>``. CLIP's image tower is not needed and left out.

    Source: github.com/bytedance/GR-MG, ``evaluate/wrapper/model_wrapper.py``.

    Args:
        policy: a policy built by :class:`GRMGSpec`, a value model of it, or the :class:`GRMG`.
        path: the file.
        weights_only: refuse a file that holds anything but tensors and plain containers; False
            runs code from the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another kind of file, or a key is missing, unexpected or of another
            shape; all are listed.
    """
    _copy(load_tensors, policy, path, weights_only=weights_only)


def write_gr_mg_checkpoint(policy: nn.Module, source: str | os.PathLike[str], path: Path) -> None:
    """Writes a copy of the authors' file `source` that has the policy's weights."""
    payload = _copy(store_tensors, policy, source)
    with whole_file(path) as hidden:
        torch.save(payload, hidden)


def _copy(
    copy: Callable[..., None],
    policy: nn.Module,
    path: str | os.PathLike[str],
    weights_only: bool = True,
) -> Any:
    """Copy between a policy and what its authors' file holds, which is returned."""
    network = only_module(policy, GRMG)
    payload = read_file(path, weights_only=weights_only)
    tensors = without_prefix(entry(payload, "state_dict", str(path)), "model.")
    copy(network, tensors, gr_mg_sources(network), unused=_UNUSED, where=str(path))
    return payload


def gr_mg_sources(network: GRMG) -> dict[str, Source]:
    """Where each entry of the network's state dict lies in a checkpoint, without ``model.``."""
    text = openai_sources(network.config.text)
    found = {}
    for name in network.state_dict():
        if name.startswith("text_encoder."):
            found[name] = text[name.removeprefix("text_encoder.")].under("text_encoder.")
        else:
            group = next((g for g in _OUR_GROUPS if name.startswith(g)), "")
            found[name] = Source(name.removeprefix(group))
    return found
