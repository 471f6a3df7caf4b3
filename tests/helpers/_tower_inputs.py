"""The pretrained towers by name, and random images and words for them."""

from __future__ import annotations

import torch
from tensordict import TensorDict

IMAGE_TOWERS = ["siglip", "clip", "dinov2", "vit_mae"]
TEXT_TOWERS = ["siglip", "clip", "bert"]


def frames(*batch, size=32, length=6):
    tokens = torch.randint(3, 64, (*batch, length))
    mask = torch.arange(length) < torch.randint(2, length + 1, (*batch, 1))
    image = torch.randint(0, 256, (*batch, 3, size, size), dtype=torch.uint8)
    return TensorDict(
        {
            "observation": {"image": image},
            "instruction": {"tokens": torch.where(mask, tokens, 0), "mask": mask},
        },
        batch,
    )
