"""What a policy sees of CALVIN's state vectors, the same from the simulator and from a dataset."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.calvin.settings import Scene, check_scene

PROPRIOCEPTION_DIM = 11
PRIVILEGED_DIM = 53
BLOCK_ENTRIES = tuple(
    tuple(first + 3 * block + axis for first in (17, 26, 35, 44) for axis in range(3))
    for block in range(3)
)
"""The privileged state's entries of the red, the blue and the pink block, twelve each."""
_COLOURS = ("red", "blue", "pink")
BLOCK_ORDER: dict[Scene, tuple[str, str, str]] = {
    "A": ("pink", "blue", "red"),
    "B": ("red", "blue", "pink"),
    "C": ("blue", "red", "pink"),
    "D": ("red", "blue", "pink"),
}
"""Colours of the three blocks in the order in which each scene's ``scene_obs`` holds them."""


def state_vector(
    robot_obs: np.ndarray,
    scene_obs: np.ndarray | None = None,
    scene: Scene = "D",
    privileged: bool = False,
) -> np.ndarray:
    """The entry ``("observation", "state")`` of CALVIN's state vectors.

    Proprioception, 11 numbers: 0:3 hand position in metres, 3:6 sine and 6:9 cosine of its Euler
    angles, which are near pi and wrap, 9 gripper width in metres, 10 last gripper action (1 open,
    -1 close). Privileged, 53 numbers: those, then 11:17 slider, drawer, button, switch, lightbulb
    and led. Then the blocks, in the order red, blue, pink in every scene: 17:26 positions, 26:35
    sine and 35:44 cosine of Euler angles, 44:53 positions as seen from the hand.

    Args:
        robot_obs: float [..., 15].
        scene_obs: float [..., 24], blocks in the scene's own order; needed when privileged.
        scene: letter of the scene.
        privileged: whether to add what is hidden from a policy that sees images.

    Returns:
        float32 [..., 11] or [..., 53].

    Raises:
        ValueError: for a wrong shape or an unknown scene.

    Example:
        >>> import numpy as np
        >>> from rftf_torchrl import state_vector
        >>> robot_obs, scene_obs = np.zeros((4, 15)), np.zeros((4, 24))
        >>> state_vector(robot_obs).shape
        (4, 11)
        >>> state_vector(robot_obs, scene_obs, "A", privileged=True).shape
        (4, 53)
    """
    robot_obs = _checked("robot_obs", robot_obs, 15)
    hand, angles = robot_obs[..., :3], robot_obs[..., 3:6]
    parts = [hand, np.sin(angles), np.cos(angles), robot_obs[..., 6:7], robot_obs[..., 14:15]]
    if privileged:
        check_scene(scene)
        scene_obs = _checked("scene_obs", scene_obs, 24)
        if scene_obs.shape[:-1] != robot_obs.shape[:-1]:
            raise ValueError(
                f"robot_obs {robot_obs.shape} and scene_obs {scene_obs.shape} must have the same "
                "leading shape"
            )
        places = [BLOCK_ORDER[scene].index(colour) for colour in _COLOURS]
        blocks = scene_obs[..., 6:].reshape(*scene_obs.shape[:-1], 3, 6)[..., places, :]
        positions, turns = blocks[..., :3], blocks[..., 3:]
        parts.append(scene_obs[..., :6])
        for part in (positions, np.sin(turns), np.cos(turns), positions - hand[..., None, :]):
            parts.append(part.reshape(*scene_obs.shape[:-1], 9))
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _checked(name: str, value: np.ndarray | None, length: int) -> np.ndarray:
    if value is None:
        raise ValueError(f"{name} [..., {length}] is needed for the privileged state")
    value = np.asarray(value, dtype=np.float64)
    if value.ndim == 0 or value.shape[-1] != length:
        raise ValueError(f"{name} must have the shape [..., {length}], got {value.shape}")
    return value
