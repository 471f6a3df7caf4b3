"""CALVIN's on-disk format: file names, the vectors of a frame, and how its actions are made.

Source: Mees et al. 2022, arXiv 2112.03227, and ``dataset/README.md`` of github.com/mees/calvin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rftf_torchrl.calvin.settings import SCENES

SPLITS = ("training", "validation")

EPISODES_FILE = "ep_start_end_ids.npy"
LENGTHS_FILE = "ep_lens.npy"
SCENES_FILE = "scene_info.npy"
STATISTICS_FILE = "statistics.yaml"
CONFIG_FILE = ".hydra/merged_config.yaml"
ANNOTATIONS_FILE = "lang_annotations/auto_lang_ann.npy"
INTERRUPTED_FILE = "interrupted.txt"
"""Ours: in a split whose recording stopped early. CALVIN's own loader does not look at it."""
STEPS_FILE = "simulator_steps.txt"
"""Ours: the control steps that recording the split used."""

ABSOLUTE = "actions"
RELATIVE = "rel_actions"
ROBOT = "robot_obs"
SCENE = "scene_obs"
STATIC = "rgb_static"
GRIPPER = "rgb_gripper"
STATIC_DEPTH = "depth_static"
GRIPPER_DEPTH = "depth_gripper"

VECTORS = {ABSOLUTE: 7, RELATIVE: 7, ROBOT: 15, SCENE: 24}
"""The vectors of every frame and their sizes."""

ACTION_DIM = 7
LARGEST_MOVE = 0.02
LARGEST_TURN = 0.05
POSE_AND_GRIPPER = (0, 1, 2, 3, 4, 5, 14)


def frame_name(number: int) -> str:
    """The file name of a frame.

    Args:
        number: the frame's number in the whole split.

    Returns:
        The name, with seven digits.

    Example:
        >>> frame_name(64)
        'episode_0000064.npz'
    """
    return f"episode_{number:07d}.npz"


def split_folder(root: str | Path, split: str) -> Path:
    """The folder of a split.

    Args:
        root: the folder of the dataset.
        split: ``"training"`` or ``"validation"``.

    Returns:
        ``root / split``.

    Raises:
        ValueError: at another split.

    Example:
        >>> split_folder("task_D_D", "validation").as_posix()
        'task_D_D/validation'
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {list(SPLITS)}.")
    return Path(root) / split


def scene_name(scene: str) -> str:
    """CALVIN's name of a scene.

    Args:
        scene: ``"A"`` to ``"D"``.

    Returns:
        ``"calvin_scene_"`` and the letter.

    Raises:
        ValueError: at another scene.

    Example:
        >>> scene_name("D")
        'calvin_scene_D'
    """
    if scene not in SCENES:
        raise ValueError(f"scene is {scene!r}, expected one of {list(SCENES)}.")
    return f"calvin_scene_{scene}"


def absolute_action(next_robot_obs: ArrayLike) -> NDArray[np.float64]:
    """The entry ``actions`` of a frame: the pose and the gripper of the moment after it.

    Args:
        next_robot_obs: [*B, 15], the robot one control step later.

    Returns:
        float64 [*B, 7]: position, Euler angles, and the gripper's command.

    Example:
        >>> absolute_action(range(15)).tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 14.0]
    """
    return np.asarray(next_robot_obs, dtype=np.float64)[..., POSE_AND_GRIPPER]


def relative_action(robot_obs: ArrayLike, action: ArrayLike) -> NDArray[np.float64]:
    r"""The entry ``rel_actions`` that CALVIN derives from ``actions``.

    :math:`\mathrm{clip}(p' - p, \pm 0.02) / 0.02` for the position, and the same with 0.05 for the
    Euler angles, whose differences are wrapped to :math:`[-\pi, \pi)`; the gripper as it is.

    Args:
        robot_obs: [*B, 15], the robot at the frame.
        action: [*B, 7], the absolute action.

    Returns:
        float64 [*B, 7], the first six in [-1, 1].

    Example:
        >>> relative_action([0.0] * 15, [0.01, -0.5, 0, 6.2331853, 0, 0, 1]).round(4).tolist()
        [0.5, -1.0, 0.0, -1.0, 0.0, 0.0, 1.0]
    """
    robot, target = (np.asarray(each, dtype=np.float64) for each in (robot_obs, action))
    move = (target[..., :3] - robot[..., :3]) / LARGEST_MOVE
    turn = (target[..., 3:6] - robot[..., 3:6] + np.pi) % (2 * np.pi) - np.pi
    arm = np.concatenate([move, turn / LARGEST_TURN], axis=-1).clip(-1, 1)
    return np.concatenate([arm, target[..., 6:7]], axis=-1)


def still_actions(robot_obs: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """The actions of a frame after which nothing was done: stay, and leave the gripper.

    Args:
        robot_obs: [15], the robot at the frame.

    Returns:
        The relative and the absolute action, float64 [7] each; a gripper that has had no command
        (0) counts as closing, as in CALVIN's own recordings.

    Example:
        >>> relative, absolute = still_actions([0.1] * 14 + [1.0])
        >>> relative.tolist(), absolute.tolist()
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 1.0])
    """
    absolute = absolute_action(robot_obs)
    absolute[6] = 1.0 if absolute[6] > 0 else -1.0
    return np.append(np.zeros(6), absolute[6]), absolute
