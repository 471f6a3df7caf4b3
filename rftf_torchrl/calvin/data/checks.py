"""Checks of one frame, before it is written and after it is read; each lists its violations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rftf_torchrl.calvin.data.format import (
    ABSOLUTE,
    GRIPPER,
    GRIPPER_DEPTH,
    RELATIVE,
    ROBOT,
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
# The hand's Euler angles; of the robot, its seven joints too.
ANGLES = {ABSOLUTE: range(3, 6), ROBOT: (*range(3, 6), *range(7, 14))}


def frame_problems(frame: Mapping[str, np.ndarray], *cameras: str) -> list[str]:
    """List what is wrong with a frame.

    Args:
        frame: the entries of the frame's file.
        cameras: the keys of the images that must be there; the others may be absent.

    Returns:
        One sentence per violation, with its key; none if the frame is sound.

    Example:
        >>> frame = {key: np.zeros(size) for key, size in VECTORS.items()}
        >>> frame["actions"][6] = frame["rel_actions"][6] = 1
        >>> frame_problems(frame)
        []
        >>> frame["rel_actions"][2] = np.nan
        >>> frame_problems(frame, "rgb_gripper")
        ["key 'rel_actions': index 2 is nan, expected a finite number", \
"key 'rgb_gripper': missing"]
    """
    problems = []
    for key in (*VECTORS, *CAMERAS):
        found = frame.get(key)
        if found is not None:
            lines = _vector(key, found) if key in VECTORS else _picture(key, found)
        else:
            lines = ["missing"] * (key in VECTORS or key in cameras)
        problems += [f"key {key!r}: {line}" for line in lines]
    return problems


def _vector(key: str, found: np.ndarray) -> list[str]:
    if found.dtype.kind != "f":
        return [f"dtype {found.dtype}, expected a floating-point dtype"]
    if found.shape != (VECTORS[key],):
        return [f"shape {found.shape}, expected ({VECTORS[key]},)"]
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        return [f"index {wrong[0]} is {found[wrong[0]]}, expected a finite number"]
    problems = []
    outside = np.flatnonzero(np.abs(found[:6]) > 1 + ROUNDING)
    if key == RELATIVE and len(outside):
        problems.append(f"index {outside[0]} is {found[outside[0]]}, expected -1 to 1")
    if key in (ABSOLUTE, RELATIVE) and abs(found[6]) != 1:
        problems.append(
            f"the gripper (index 6) is {found[6]}, expected exactly 1.0 (open) or -1.0 (close)"
        )
    beyond = [i for i in ANGLES.get(key, ()) if abs(found[i]) > 2 * np.pi]
    if beyond:
        problems.append(
            f"index {beyond[0]} is {found[beyond[0]]}, expected an angle in radians, -2 pi to 2 pi"
        )
    return problems


def _picture(key: str, found: np.ndarray) -> list[str]:
    dtype, shape = CAMERAS[key]
    if found.dtype != dtype:
        return [f"dtype {found.dtype}, expected {dtype}"]
    if found.ndim != shape.count(",") + 1 or (found.ndim == 3 and found.shape[2] != 3):
        return [f"shape {found.shape}, expected {shape}"]
    return []
