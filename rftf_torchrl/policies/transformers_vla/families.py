"""What differs between families of vision-language models: prompts, image tokens, positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

QUESTION = "What action should the robot take to {instruction}?"


@dataclass(frozen=True)
class Family:
    """How models of one family are spoken to.

    Attributes:
        prompt: ``{image}`` and ``{instruction}`` stand for the images and the instruction.
        picture: the text of one image; ``{tokens}`` stands for its image tokens.
        tokens: number of image tokens of each image, from the model's config, the image
            processor and what that processor wrote.
        positions: position ids of unpadded ids, [L]; with a grid [3, L].
        image_options: how the image processor is called.
        nested: whether the image processor takes a list of images for every observation.
        prefix_types: whether the model needs ``token_type_ids``, which say that the prompt is a
            prefix, in which attention goes both ways.
        grid: whether it needs ``image_grid_thw``; then ``pixel_values`` are patches
            [..., 3 * patch], and else images [..., 3, h, w].
        connector: name of the module between the vision tower and the language model; None where
            the tower writes image tokens itself.
    """

    prompt: str
    picture: str
    tokens: Callable[[Mapping[str, Any], Any, Mapping[str, Tensor]], list[int]]
    positions: Callable[[Tensor, int, Tensor | None, int], Tensor]
    image_options: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False
    prefix_types: bool = False
    grid: bool = False
    connector: str | None = None


def _plain_positions(ids: Tensor, image_token: int, grid: Tensor | None, merge: int) -> Tensor:
    return torch.arange(len(ids))


def _from_one(ids: Tensor, image_token: int, grid: Tensor | None, merge: int) -> Tensor:
    return torch.arange(1, len(ids) + 1)


def _mrope(ids: Tensor, image_token: int, grid: Tensor | None, merge: int) -> Tensor:
    """Time, row and column of every token, int64 [3, L].

    Source: Wang et al. 2024, "Qwen2-VL", arXiv 2409.12191, section 2.1 (M-RoPE).
    """
    grids = iter([] if grid is None else grid.tolist())
    columns: list[Tensor] = []
    place, at = 0, 0
    while at < len(ids):
        if ids[at] != image_token:
            columns.append(torch.full((3, 1), place))
            place, at = place + 1, at + 1
            continue
        time, height, width = next(grids)
        height, width = height // merge, width // merge
        axes = [torch.arange(n) + place for n in (time, height, width)]
        columns.append(torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1))
        place, at = place + max(height, width), at + time * height * width
    return torch.cat(columns, 1)


def _shuffled(config: Mapping[str, Any], processor: Any, seen: Mapping[str, Tensor]) -> list[int]:
    """Patches of one tile, of which each ``scale_factor`` squared become one token."""
    vision = config["vision_config"]
    side = vision["image_size"] // vision["patch_size"]
    return [side**2 // config["scale_factor"] ** 2] * seen["pixel_values"].shape[1]


def _all_patches(config: Mapping[str, Any], processor: Any, seen: Mapping[str, Any]) -> list[int]:
    vision = config["vision_config"]
    side = vision["image_size"] // vision["patch_size"]
    return [side**2] * len(seen["pixel_values"])


def _merged(config: Mapping[str, Any], processor: Any, seen: Mapping[str, Tensor]) -> list[int]:
    return [int(n) for n in seen["image_grid_thw"].prod(-1) // processor.merge_size**2]


_IDEFICS = Family(
    prompt=f"<|im_start|>User:{{image}}{QUESTION}<end_of_utterance>\nAssistant:",
    picture="<fake_token_around_image><global-img>{tokens}<fake_token_around_image>",
    tokens=_shuffled,
    positions=_plain_positions,
    image_options={"do_image_splitting": False},
    nested=True,
    connector="connector",
)
_PALIGEMMA = Family(
    prompt=f"{{image}}<bos>{QUESTION}\n",
    picture="{tokens}",
    tokens=_all_patches,
    positions=_from_one,
    prefix_types=True,
    connector="multi_modal_projector",
)
_QWEN = Family(
    prompt=f"<|im_start|>user\n{{image}}{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
    picture="<|vision_start|>{tokens}<|vision_end|>",
    tokens=_merged,
    positions=_mrope,
    grid=True,
)

FAMILIES: Mapping[str, Family] = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "paligemma": _PALIGEMMA,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
}
"""By ``model_type`` of the model's config."""


def family_of(config: Mapping[str, Any], known: Sequence[str] = tuple(FAMILIES)) -> Family:
    """The family of a model, by the ``model_type`` of its config.

    Raises:
        ValueError: where the library does not know the family.
    """
    name = config["model_type"]
    if name not in known:
        raise ValueError(
            f"model_type is {name!r}, and the known families are {', '.join(known)}: choose a "
            "model of one of these, or describe yours by a policy spec of your own."
        )
    return FAMILIES[name]


def image_token_of(config: Mapping[str, Any]) -> int:
    """The id of the token that stands for a piece of an image; older configs call it an index."""
    return int(config["image_token_id" if "image_token_id" in config else "image_token_index"])
