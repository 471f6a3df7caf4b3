"""Seer's released checkpoints: load one, and write a policy into a copy of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
from rftf_torchrl.paper_policies.blocks.clip_text import load_clip
from rftf_torchrl.paper_policies.seer.network import Seer

_POSITION = "transformer_backbone_position_embedding"
_TOWERS = ("vision_encoder.", "clip_model.")
_UNUSED = (
    "action_pose_encoder.",
    "action_gripper_position_encoder.",
    "action_projector.",
    "recon_state_decoder.",
    "recon_arm_state_decoder.",
    "recon_gripper_state_decoder.",
)


def load_seer_checkpoint(
    policy: nn.Module,
    path: str | os.PathLike[str],
    *,
    mae: str | os.PathLike[str],
    clip: str | os.PathLike[str],
    weights_only: bool = True,
) -> None:
    """Fills a Seer policy from a file of its authors and from the two frozen towers' own files.

    The authors save what they trained, under ``module.<name>`` in ``"model_state_dict"``. Parts
    that they store without using them are left out, and the position embedding of a longer
    pretraining window is cut to the policy's.

    Source: github.com/OpenRobotLab/Seer, ``eval_calvin.py`` and ``utils/train_utils.py``.

    Args:
        policy: a policy built by :class:`SeerSpec`, or the :class:`Seer` inside.
        path: the file, e.g. ``19.pth``.
        mae: the image encoder, ``mae_pretrain_vit_base.pth``.
        clip: OpenAI's ``ViT-B-32.pt``, or a folder of ``transformers`` with the same model.
        weights_only: refuse files that hold anything but tensors and plain containers; False runs
            code from the files.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is another kind of file, or a key is missing, unexpected or of another
            shape; all are listed.
    """
    network = only_module(policy, Seer)
    image = entry(read_file(mae, weights_only=weights_only), "model", str(mae))
    load_clip(network.clip_model, clip, weights_only=weights_only)
    _copy(load_tensors, network, path, weights_only=weights_only)
    encoder = {name: Source(name) for name in network.vision_encoder.state_dict()}
    decoder = ("mask_token", "decoder_")
    load_tensors(network.vision_encoder, image, encoder, unused=decoder, where=str(mae))


def write_seer_checkpoint(policy: nn.Module, source: str | os.PathLike[str], path: Path) -> None:
    """Writes a copy of the authors' file `source` that has the policy's weights."""
    payload = _copy(store_tensors, only_module(policy, Seer), source)
    with whole_file(path) as hidden:
        torch.save(payload, hidden)


def _copy(
    copy: Callable[..., None],
    network: Seer,
    path: str | os.PathLike[str],
    weights_only: bool = True,
) -> Any:
    """Copy between a network and what its authors' file holds, which is returned."""
    payload = read_file(path, weights_only=weights_only)
    trained = without_prefix(entry(payload, "model_state_dict", str(path)), "module.")
    trained = _cut(trained, network.transformer_backbone_position_embedding)
    copy(network, trained, seer_sources(network), unused=_UNUSED, where=str(path))
    return payload


def seer_sources(network: Seer) -> dict[str, Source]:
    """Where each trained entry of the network's state dict lies, without ``module.``."""
    return {name: Source(name) for name in network.state_dict() if not name.startswith(_TOWERS)}


def _cut(tensors: Mapping[str, Tensor], position: Tensor) -> dict[str, Tensor]:
    """The tensors, the position embedding of a longer window cut to this policy's."""
    found = dict(tensors)
    if _POSITION in found and found[_POSITION].ndim == position.ndim:
        found[_POSITION] = found[_POSITION][:, : position.shape[1]]
    return found
