"""Vision-language models of ``transformers``: load, build, and find their parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from rftf_torchrl.optional import transformers_module

Dtype = Literal["float32", "bfloat16"]
Trained = Literal["all", "language", "head"]


def load_config(source: str | Path) -> dict[str, Any]:
    """The config of a model in a folder or on a hub, as a dict that JSON can hold."""
    config = transformers_module("this policy").AutoConfig.from_pretrained(
        source, trust_remote_code=False
    )
    return cast(dict[str, Any], json.loads(config.to_json_string(use_diff=False)))


def build_backbone(config: Mapping[str, Any], dtype: Dtype = "float32") -> nn.Module:
    """An image-text-to-text model with fresh weights.

    Args:
        config: as :func:`load_config` gives it.
        dtype: of the weights.

    Returns:
        The model; it has no dropout.
    """
    transformers = transformers_module("this policy")
    known = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModelForImageTextToText.from_config(known, dtype=_dtype(dtype))
    return without_dropout(model)


def load_backbone(source: str | Path, dtype: Dtype = "float32") -> nn.Module:
    """An image-text-to-text model with the weights of a folder or a hub.

    Args:
        source: local folder or id.
        dtype: of the weights.

    Returns:
        The model; it has no dropout.

    Raises:
        ValueError: listing every weight that is missing, unexpected or of another shape; nothing
            is ever left at random values.
    """
    model, info = transformers_module("this policy").AutoModelForImageTextToText.from_pretrained(
        source,
        dtype=_dtype(dtype),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
    )
    problems = [f"missing: {name}" for name in sorted(info["missing_keys"])]
    problems += [f"unexpected: {name}" for name in sorted(info["unexpected_keys"])]
    problems += [
        f"{name}: shape {tuple(saved)}, expected {tuple(expected)}"
        for name, saved, expected in sorted(info["mismatched_keys"])
    ]
    if problems:
        raise ValueError(
            f"the weights in {source} are not those of its model:\n  - " + "\n  - ".join(problems)
        )
    return without_dropout(model)


def without_dropout(model: nn.Module) -> nn.Module:
    """Set every dropout rate to zero, so that rollout and loss see one policy in any mode.

    Evaluation mode would do that too, but gradient checkpointing works in training mode alone.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def trunk_of(backbone: nn.Module) -> Any:
    """The part of a model that maps embeddings to hidden states, also inside a PEFT model."""
    inner: Any = backbone
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    return inner.model


def tower_of(backbone: nn.Module) -> Any:
    """The vision tower of a model, also inside a PEFT model; None if no known name has one."""
    trunk = trunk_of(backbone)
    found = (getattr(trunk, name, None) for name in ("vision_model", "vision_tower", "visual"))
    return next((tower for tower in found if tower is not None), None)


def freeze_backbone(backbone: nn.Module, trained: Trained) -> None:
    """Switch off the gradient of what is not trained.

    Args:
        backbone: the model.
        trained: ``"all"``; ``"language"`` without the vision tower; ``"head"`` nothing of it.

    Raises:
        ValueError: at another word.
    """
    if trained == "head":
        backbone.requires_grad_(False)
    elif trained == "language":
        tower = tower_of(backbone)
        if tower is not None:
            tower.requires_grad_(False)
    elif trained != "all":
        raise ValueError(f"trained must be 'all', 'language' or 'head', got {trained!r}.")


def _dtype(name: Dtype) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {name!r}.")
    return known[name]
