"""Fill CLIP's text tower from whichever file holds it."""

from __future__ import annotations

import os
import warnings

import torch

from rftf_torchrl.paper_policies.blocks.checkpoint import Source, load_tensors, read_file
from rftf_torchrl.paper_policies.blocks.clip_text import OPENAI_UNUSED, ClipText, openai_sources
from rftf_torchrl.paper_policies.blocks.optional import transformers


def load_clip(tower: ClipText, path: str | os.PathLike[str], *, weights_only: bool = True) -> None:
    """Copies CLIP's parameters into the tower.

    Args:
        tower: the text tower.
        path: OpenAI's TorchScript archive, a saved state dict with its names, or a folder of
            ``transformers``.
        weights_only: see :func:`torch.load`; a TorchScript archive holds code in any case.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if a parameter is missing, unexpected or of another shape.
    """
    if os.path.isdir(path):
        clip = transformers("CLIP's text tower").models.clip
        tensors = clip.CLIPTextModelWithProjection.from_pretrained(path).state_dict()
        sources = {name: Source(name) for name in tower.model.state_dict()}
        load_tensors(tower.model, tensors, sources, where=str(path))
        return
    try:
        with warnings.catch_warnings():  # TorchScript is deprecated, and is what OpenAI released
            warnings.simplefilter("ignore", DeprecationWarning)
            tensors = torch.jit.load(path, map_location="cpu").state_dict()
    except (RuntimeError, ValueError):
        tensors = dict(read_file(path, weights_only=weights_only))
    sources = openai_sources(tower.config)
    load_tensors(tower, tensors, sources, unused=OPENAI_UNUSED, where=str(path))
