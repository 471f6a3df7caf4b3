"""What the frozen encoders of GR-MG and Seer say of a decision, and where the data keep it."""

from __future__ import annotations

from tensordict.utils import NestedKey

from rftf_torchrl.nets.tower_features import Compute, TowerFeatures
from rftf_torchrl.paper_policies.blocks.inputs import CLIP_TOKENS, GOAL_IMAGE, IMAGES, WRIST_IMAGES


def kept_features(compute: Compute, *, wrist: bool, goal: bool = False) -> TowerFeatures:
    """The place of encoded pictures and instruction.

    Args:
        compute: maps ``"image"``, ``"wrist_image"``, ``"goal_image"`` and ``"tokens"``, those that
            there are, to encoded pictures of the same names and to ``"text"``.
        wrist: whether there is a gripper camera.
        goal: whether there is a goal image.
    """
    pictures: dict[str, NestedKey] = {"image": IMAGES}
    if wrist:
        pictures["wrist_image"] = WRIST_IMAGES
    if goal:
        pictures["goal_image"] = GOAL_IMAGE
    return TowerFeatures(compute, {**pictures, "tokens": CLIP_TOKENS}, [*pictures, "text"])


def kept_keys(kept: TowerFeatures) -> list[NestedKey]:
    """Keys of static pictures, gripper pictures, perhaps goal image, and text."""
    features = kept.features
    first = [features["image"], features.get("wrist_image", features["image"])]
    return [*first, *(features[name] for name in ("goal_image", "text") if name in features)]
