"""Checks of one frame, before it is written and after it is read; each lists its violations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rftf_torchrl.calvin.data.format import (
    ABSOLUTE,
    GRIPPER,
    GRIPPER_DEPTH,
    RELATIVE,
    STATIC,
    STATIC_DEPTH,
    VECTORS,
)

CAMERAS = {
    STATIC: ("uint8", "[height, width, 3]"),
    GRIPPER: ("uint8", "[height, width, 3]"),
    STATIC_DEPTH: ("float32", "[height, width]"),
    GRIPPER_DEPTH: ("float32", "[height, width]"),
}
ROUNDING = 1e-6


def vector_problems(frame: Mapping[str, np.ndarray]) -> list[str]:
    """List what is wrong with the four vectors of a frame.

    Args:
        frame: the entries of the frame's file.

    Returns:
        One sentence per violation, with its key; none if the vectors are sound.

    Example:
        >>> frame = {key: np.zeros(size) for key, size in VECTORS.items()}
        >>> frame["actions"][6] = frame["rel_actions"][6] = 1
        >>> vector_problems(frame)
        []
        >>> frame["rel_actions"][2] = np.nan
        >>> vector_problems(frame)
        ["key 'rel_actions': index 2 is nan, expected a finite number"]
    """
    problems = []
    for key, size in VECTORS.items():
        found = frame.get(key)
        if found is None:
            problems.append(f"key {key!r}: missing")
        elif found.dtype.kind != "f":
            problems.append(f"key {key!r}: dtype {found.dtype}, expected a floating-point dtype")
        elif found.shape != (size,):
            problems.append(f"key {key!r}: shape {found.shape}, expected ({size},)")
        elif not np.isfinite(found).all():
            index = int(np.flatnonzero(~np.isfinite(found))[0])
            problems.append(
                f"key {key!r}: index {index} is {found[index]}, expected a finite number"
            )
        elif key in (ABSOLUTE, RELATIVE):
            problems += _action_problems(key, found)
    return problems


def camera_problems(frame: Mapping[str, np.ndarray], *required: str) -> list[str]:
    """List what is wrong with the pictures of a frame.

    Args:
        frame: the entries of the frame's file.
        required: the keys that must be there; the others may be absent.

    Returns:
        One sentence per violation, with its key; none if the pictures are sound.

    Example:
        >>> camera_problems({"rgb_static": np.zeros((3, 8, 8), np.uint8)}, "rgb_gripper")
        ["key 'rgb_static': shape (3, 8, 8), expected [height, width, 3]", \
"key 'rgb_gripper': missing"]
    """
    problems = []
    for key, (dtype, shape) in CAMERAS.items():
        found = frame.get(key)
        if found is None:
            problems += [f"key {key!r}: missing"] if key in required else []
        elif found.dtype != dtype:
            problems.append(f"key {key!r}: dtype {found.dtype}, expected {dtype}")
        elif found.ndim != shape.count(",") + 1 or (found.ndim == 3 and found.shape[2] != 3):
            problems.append(f"key {key!r}: shape {found.shape}, expected {shape}")
    return problems


def _action_problems(key: str, action: np.ndarray) -> list[str]:
    problems = []
    outside = np.flatnonzero(np.abs(action[:6]) > 1 + ROUNDING)
    if key == RELATIVE and len(outside):
        index = int(outside[0])
        problems.append(f"key {key!r}: index {index} is {action[index]}, expected -1 to 1")
    if abs(action[6]) != 1:
        problems.append(
            f"key {key!r}: the gripper (index 6) is {action[6]}, expected exactly 1.0 (open) or "
            "-1.0 (close)"
        )
    return problems
