"""Where GR-MG and Seer read their inputs, and what they take from a robot's state."""

from __future__ import annotations

import torch
from tensordict.utils import NestedKey
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.nets.history import ObservationHistory
from rftf_torchrl.nets.tower_features import Compute, TowerFeatures

IMAGES = ("vla_inputs", "image_history")
WRIST_IMAGES = ("vla_inputs", "wrist_image_history")
STATES = ("vla_inputs", "state_history")
VALID = ("vla_inputs", "valid")
GOAL_IMAGE = ("vla_inputs", "goal_image")
CLIP_TOKENS = ("vla_inputs", "clip_tokens")


def history_keys(wrist: bool) -> list[NestedKey]:
    """Keys of static images, gripper images, states and validity; see :func:`history_of`."""
    return [IMAGES, WRIST_IMAGES if wrist else IMAGES, STATES, VALID]


def history_of(length: int, wrist: bool) -> ObservationHistory:
    """The window of both cameras and of the robot's state."""
    windows = {keys.IMAGE: IMAGES, keys.STATE: STATES}
    if wrist:
        windows[keys.WRIST_IMAGE] = WRIST_IMAGES
    return ObservationHistory(length, windows, valid_key=VALID)


def robot_pose(state: Tensor, arm_dim: int) -> tuple[Tensor, Tensor]:
    """The arm's pose and whether the gripper is open.

    Args:
        state: ``("observation", "state")``, float [*B, S]: [4], position and gripper opening, of an
            arm that does not turn (Meta-World's); of one that does, CALVIN's 15-number
            ``robot_obs``, or its environment's [11] or [53], see
            :func:`rftf_torchrl.state_vector`.
        arm_dim: 3 for the position, 6 with Euler angles.

    Returns:
        The pose, float [*B, arm_dim], and 1 (open) or 0, int64 [*B].

    Raises:
        ValueError: if the state has another size.
    """
    size = state.shape[-1]
    if arm_dim == 3 and size == 4:
        return state[..., :3], (state[..., 3] > 0.5).long()
    if arm_dim == 6 and size == 15:
        return state[..., :6], (state[..., 14] > 0).long()
    if arm_dim == 6 and size in (11, 53):
        angles = torch.atan2(state[..., 3:6], state[..., 6:9])
        return torch.cat((state[..., :3], angles), dim=-1), (state[..., 10] > 0).long()
    sizes = "4" if arm_dim == 3 else "11, 15 or 53"
    raise ValueError(
        f"{keys.STATE!r} must have {sizes} numbers for an arm of {arm_dim}, got shape "
        f"{tuple(state.shape)}."
    )


def spans_of(frame: Tensor, spans: Tensor) -> Tensor:
    """The span [M, 2] of the episode in which each frame [M] lies, out of spans [E, 2] in order."""
    return spans[torch.searchsorted(spans[:, 0].contiguous(), frame, right=True) - 1]


def kept_features(compute: Compute, *, wrist: bool, goal: bool = False) -> TowerFeatures:
    """The place of encoded images and instruction.

    Args:
        compute: maps ``"image"``, ``"wrist_image"``, ``"goal_image"`` and ``"tokens"``, those that
            there are, to encoded images of the same names and to ``"text"``.
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
    """Keys of static images, gripper images, perhaps goal image, and text."""
    features = kept.features
    first = [features["image"], features.get("wrist_image", features["image"])]
    return [*first, *(features[name] for name in ("goal_image", "text") if name in features)]
