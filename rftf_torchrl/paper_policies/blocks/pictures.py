"""Images as the two policies' encoders take them, without torchvision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rftf_torchrl.nets.pictures import check_picture

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def imagenet_picture(image: Tensor, size: int) -> Tensor:
    """What torchvision 0.16's ``Resize`` of a float tensor and ``Normalize`` give (no antialias).

    Args:
        image: uint8 [N, 3, H, W].
        size: edge of the result.

    Returns:
        float32 [N, 3, size, size].
    """
    check_picture(image)
    picture = image.float() / 255
    if image.shape[-2:] != (size, size):
        picture = F.interpolate(picture, (size, size), mode="bicubic", align_corners=False)
    return _normalise(picture, IMAGENET)


def clip_picture(image: Tensor, size: int) -> Tensor:
    """What OpenAI's CLIP transform gives: PIL's bicubic resize of the shorter edge, centre crop.

    PIL resizes the width, rounds to whole grey levels, then does the same with the height; its
    arithmetic is in fixed point, so now and then a value differs by one level.

    Args:
        image: uint8 [N, 3, H, W].
        size: edge of the result.

    Returns:
        float32 [N, 3, size, size].
    """
    check_picture(image)
    height, width = image.shape[-2:]
    shorter = min(height, width)
    target = (int(size * height / shorter), int(size * width / shorter))
    picture = image.float()
    for edges in ((height, target[1]), target):
        if picture.shape[-2:] != edges:
            picture = F.interpolate(picture, edges, mode="bicubic", antialias=True)
            picture = (picture + 0.5).floor().clamp(0, 255)
    top, left = (round((edge - size) / 2) for edge in target)
    return _normalise(picture[..., top : top + size, left : left + size] / 255, CLIP)


def _normalise(picture: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, std = (torch.tensor(s, device=picture.device).view(3, 1, 1) for s in statistics)
    return (picture - mean) / std
