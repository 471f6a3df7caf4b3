"""Where GR-MG and Seer read their inputs, and what they take from a robot's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from tensordict.utils import NestedKey
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.nets.history import ObservationHistory

Robot = Literal["pose", "position"]
"""Whether an arm's action moves its position and Euler angles, or its position alone."""

IMAGES = ("vla_inputs", "image_history")
WRIST_IMAGES = ("vla_inputs", "wrist_image_history")
STATES = ("vla_inputs", "state_history")
VALID = ("vla_inputs", "valid")
GOAL_IMAGE = ("vla_inputs", "goal_image")
CLIP_TOKENS = ("vla_inputs", "clip_tokens")

ARM_DIM: dict[Robot, int] = {"pose": 6, "position": 3}
_EARLIER_NAMES: dict[str, Robot] = {"calvin": "pose", "metaworld": "position"}


def history_keys(wrist: bool) -> list[NestedKey]:
    """Keys of static pictures, gripper pictures, states and validity; see :func:`history_of`."""
    return [IMAGES, WRIST_IMAGES if wrist else IMAGES, STATES, VALID]


def history_of(length: int, wrist: bool) -> ObservationHistory:
    """The window of both cameras and of the robot's state."""
    windows = {keys.IMAGE: IMAGES, keys.STATE: STATES}
    if wrist:
        windows[keys.WRIST_IMAGE] = WRIST_IMAGES
    return ObservationHistory(length, windows, valid_key=VALID)


def sizes_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The ``"config"`` of a described policy; ``arm_dim`` is the robot's where it is left out."""
    arm_dim = ARM_DIM.get(robot_named(spec.get("robot", "pose")))
    return {**({} if arm_dim is None else {"arm_dim": arm_dim}), **spec.get("config", {})}


def robot_named(robot: str) -> Robot:
    """The robot of this name, that of a policy's file of an earlier version included."""
    return _EARLIER_NAMES.get(robot, cast(Robot, robot))


def check_tokenizer(files: Mapping[str, bytes], source: str) -> None:
    """Refuses pretrained weights for a policy that would hash the words of its instruction.

    Raises:
        ValueError: if there is no tokenizer.
    """
    if not files:
        raise ValueError(
            f"the weights in {source} were trained on CLIP's tokens, and this policy has no "
            "tokenizer, so that it would hash the words of its instruction: give the spec "
            "tokenizer=<folder with CLIP's vocab.json and merges.txt> (in the recipes "
            "+policy.options.tokenizer=<folder>)."
        )


def check_robot(robot: str, arm_dim: int) -> None:
    """Refuses an unknown robot, or a network for another one.

    Raises:
        ValueError: in both cases.
    """
    if robot not in ARM_DIM:
        raise ValueError(f"robot must be one of {', '.join(ARM_DIM)}, got {robot!r}.")
    expected = ARM_DIM[robot]  # type: ignore[index]
    if arm_dim != expected:
        raise ValueError(
            f"an action of robot={robot!r} has {expected} numbers for the arm and one for the "
            f"gripper, but config.arm_dim is {arm_dim}: set it to {expected}."
        )


def check_chunk(chunk_size: int, act_len: int) -> None:
    """Refuses chunks that the network does not predict.

    Raises:
        ValueError: if the size is below 1 or above what the network predicts.
    """
    if not 1 <= chunk_size <= act_len:
        raise ValueError(
            f"chunk_size must be from 1 to config.act_len = {act_len}, the actions that the "
            f"network predicts, got {chunk_size}."
        )


def robot_pose(state: Tensor, robot: Robot) -> tuple[Tensor, Tensor]:
    """The arm's pose and whether the gripper is open.

    Args:
        state: ``("observation", "state")``, float [*B, S]. ``"pose"``: CALVIN's 15-number
            ``robot_obs``, or the environment's [11] or [53], see
            :func:`rftf_torchrl.state_vector`. ``"position"``: [4], hand position and gripper
            opening, as of Meta-World.
        robot: whose state it is.

    Returns:
        Position and Euler angles float [*B, 6], or position [*B, 3]. And 1 (open) or 0, int64
        [*B].

    Raises:
        ValueError: if the state has another size.
    """
    size = state.shape[-1]
    if robot == "position" and size == 4:
        return state[..., :3], (state[..., 3] > 0.5).long()
    if robot == "pose" and size == 15:
        return state[..., :6], (state[..., 14] > 0).long()
    if robot == "pose" and size in (11, 53):
        angles = torch.atan2(state[..., 3:6], state[..., 6:9])
        return torch.cat((state[..., :3], angles), dim=-1), (state[..., 10] > 0).long()
    sizes = "4" if robot == "position" else "11, 15 or 53"
    raise ValueError(
        f"{keys.STATE!r} of robot={robot!r} must have {sizes} numbers, got shape "
        f"{tuple(state.shape)}."
    )


def spans_of(frame: Tensor, spans: Tensor) -> Tensor:
    """The span [M, 2] of the episode in which each frame [M] lies, out of spans [E, 2] in order."""
    return spans[torch.searchsorted(spans[:, 0].contiguous(), frame, right=True) - 1]
