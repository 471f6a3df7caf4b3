"""Read CLIP's text tower from whichever file holds it."""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor

from rftf_torchrl.paper_policies.blocks.checkpoint import read_file
from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig, openai_sources
from rftf_torchrl.paper_policies.blocks.optional import transformers


def read_clip(
    path: str | os.PathLike[str], config: ClipTextConfig, *, weights_only: bool = True
) -> dict[str, Tensor]:
    """CLIP's parameters under OpenAI's names.

    Args:
        path: OpenAI's TorchScript archive, a saved state dict with its names, or a folder of
            ``transformers``.
        config: sizes of the text tower.
        weights_only: see :func:`torch.load`; a TorchScript archive holds code in any case.

    Raises:
        FileNotFoundError: if there is nothing.
    """
    if os.path.isdir(path):
        return _from_transformers(path, config)
    try:
        with warnings.catch_warnings():  # TorchScript is deprecated, and is what OpenAI released
            warnings.simplefilter("ignore", DeprecationWarning)
            archive = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError):
        return dict(read_file(path, weights_only=weights_only))
    return dict(archive.state_dict())


def _from_transformers(path: str | os.PathLike[str], config: ClipTextConfig) -> dict[str, Tensor]:
    clip = transformers("CLIP's text tower").models.clip
    model = clip.CLIPTextModelWithProjection.from_pretrained(path)
    own = {f"model.{name}": value for name, value in model.state_dict().items()}
    thirds: dict[str, dict[int, Tensor]] = {}
    found = {}
    for name, source in openai_sources(config).items():
        if name not in own:
            continue
        value = own[name].T if source.transpose else own[name]
        if source.third is None:
            found[source.name] = value
        else:
            thirds.setdefault(source.name, {})[source.third] = value
    for name, parts in thirds.items():
        found[name] = torch.cat([parts[i] for i in sorted(parts)])
    return found
