"""GR-MG and Seer at tiny sizes; weights and inputs come from a formula, not from a generator."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rftf_torchrl import GRMG, GRMGConfig, Seer, SeerConfig
from rftf_torchrl.paper_policies.blocks.checkpoint import stored_shapes
from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig, openai_sources
from rftf_torchrl.paper_policies.blocks.vit import ViTConfig
from rftf_torchrl.paper_policies.gr_mg.checkpoint import gr_mg_sources
from rftf_torchrl.paper_policies.seer.checkpoint import seer_sources

LENGTH = 3

# Image size, patches and ViT-B's 768 features are fixed inside the originals.
GR_MG = GRMGConfig(
    image=ViTConfig(dim=32, depth=1, heads=4),
    text=ClipTextConfig(vocab_size=64, context=8, width=32, layers=2, heads=4, dim=32),
    hidden=32,
    layers=2,
    heads=4,
    history=LENGTH,
    act_len=5,
    resampler_latents=3,
    resampler_depth=1,
    resampler_heads=2,
    resampler_head_dim=8,
    act_dim=16,
    style_dim=4,
    progress_dim=16,
)
SEER = SeerConfig(
    image=ViTConfig(depth=1),
    text=ClipTextConfig(vocab_size=64, context=8, width=32, layers=2, heads=4, dim=512),
    hidden=32,
    layers=2,
    heads=4,
    history=LENGTH,
    resampler_latents=2,
    foresight=4,
)
SMALL_IMAGE = ViTConfig(image_size=32, dim=32, depth=1, heads=4)
SMALL_GR_MG = replace(GR_MG, image=SMALL_IMAGE)
SMALL_SEER = replace(SEER, image=SMALL_IMAGE, text=GR_MG.text)


def noise(shape: tuple[int, ...] | torch.Size, name: str) -> Tensor:
    """Numbers in [-1, 1] that look random and that every machine computes alike: a hash."""
    start = zlib.crc32(name.encode()) << 24
    x = start + torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    for multiplier in (0x2545F4914F6CDD1D, 0x27D4EB2F165667C5):
        x = (x ^ (x >> 29)) * multiplier
    x = (x ^ (x >> 32)) & 0xFFFFFF
    return (x.double() / 0x7FFFFF - 1).float().reshape(shape)


def formula_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A checkpoint of these names and shapes whose outputs depend on the inputs."""
    weights = {}
    for name, shape in shapes.items():
        scale = (3 / torch.Size(shape[1:]).numel()) ** 0.5 if len(shape) == 2 else 0.3
        norm = len(shape) == 1 and name.endswith("weight")
        weights[name] = float(norm) + scale * noise(shape, name)
    return weights


def gr_mg_checkpoint(network: GRMG) -> dict[str, Tensor]:
    """What the authors' file would hold for this network."""
    shapes = stored_shapes(network.state_dict(), gr_mg_sources(network))
    weights = formula_weights(shapes)
    weights["decoder_pos_embed"] = network.images.decoder_pos_embed
    state = {f"model.{name}": value for name, value in weights.items()}
    return {"epoch": 1, "state_dict": state}


def seer_checkpoints(network: Seer) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """What the authors' file, the image encoder's and CLIP's would hold for this network."""
    own = network.state_dict()
    trained = formula_weights(stored_shapes(own, seer_sources(network)))
    image = {
        name: tuple(value.shape) for name, value in network.vision_encoder.state_dict().items()
    }
    text = stored_shapes(network.clip_model.state_dict(), openai_sources(network.config.text))
    towers = []
    for prefix, shapes in (("vision_encoder.", image), ("clip_model.", text)):
        whole = formula_weights({prefix + name: shape for name, shape in shapes.items()})
        towers.append({name.removeprefix(prefix): value for name, value in whole.items()})
    state = {f"module.{name}": value for name, value in trained.items()}
    return {"epoch": 1, "model_state_dict": state}, {"model": towers[0]}, towers[1]


def window(number: int, size: int = 224) -> dict[str, Tensor]:
    """Prepared inputs of both networks, [number, LENGTH, ...]."""
    batch = (number, LENGTH)
    return {
        "image": noise((*batch, 3, size, size), "image"),
        "wrist_image": noise((*batch, 3, size, size), "wrist_image"),
        "goal_image": noise((number, 3, size, size), "goal_image"),
        "arm": noise((*batch, 6), "arm"),
        "gripper": (noise(batch, "gripper") > 0).long(),
        "valid": torch.tensor([[True] * LENGTH, [True, True, False]])[:number],
        "tokens": torch.tensor([[62, 5, 9, 63, 0, 0, 0, 0], [62, 7, 63, 0, 0, 0, 0, 0]])[:number],
    }
