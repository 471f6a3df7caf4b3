"""What policies read of LIBERO's state: the robot's eight numbers, or a vector of the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rftf_torchrl.libero.install import libero_module

PROPRIOCEPTION_DIM = 8
_GOALS, _OBJECTS = 3, 8
_HAND, _GOAL = 11, 15
PRIVILEGED_DIM = _HAND + _GOALS * _GOAL + 3 * _OBJECTS


def proprioception(observed: Any) -> np.ndarray:
    """The robot as VLA code has it: hand position in metres, its axis-angle, two finger positions.

    Args:
        observed: LIBERO's observations by name.

    Returns:
        float32 [8].
    """
    transforms = libero_module("robosuite.utils.transform_utils")
    rotation = transforms.quat2axisangle(observed["robot0_eef_quat"].copy())
    parts = (observed["robot0_eef_pos"], rotation, observed["robot0_gripper_qpos"])
    return np.concatenate(parts).astype(np.float32)


def libero_state_vector(simulator: Any) -> np.ndarray:
    """The hand, what the task's goals speak of, and where the other objects are.

    0:3 hand position, 3:9 the first two columns of its rotation matrix, 9:11 finger positions.
    Then, for each of three goals (LIBERO's tasks have one to three; the rest is zero):

    - whether there is one, and whether it is fulfilled;
    - the object's position seen from the hand (3) and the first two columns of its rotation
      matrix (6);
    - the target's position seen from the object (3); zero where a goal has no target, such as a
      drawer to be opened;
    - the position of the object's joint.

    Then, for each of eight movable objects in the definition's order, its position seen from the
    hand (3; zero where there are fewer). All in metres, in the axes of the world.

    Args:
        simulator: a :class:`~rftf_torchrl.LiberoSimulator`.

    Returns:
        float32 [80].

    Example:
        >>> from rftf_torchrl import LiberoNotInstalledError, LiberoSimulator
        >>> try:
        ...     simulator = LiberoSimulator("libero_goal", "turn_on_the_stove", render=False)
        ...     simulator.reset(0)
        ...     goals = libero_state_vector(simulator)[[11, 26, 41]].tolist()
        ...     simulator.close()
        ... except LiberoNotInstalledError:
        ...     goals = [1.0, 0.0, 0.0]
        >>> goals
        [1.0, 0.0, 0.0]
    """
    raw, observed = simulator.raw, simulator.observed
    hand = observed["robot0_eef_pos"]
    turned = _columns(raw.robots[0].controller.ee_ori_mat)
    vector = np.zeros(PRIVILEGED_DIM)
    vector[:_HAND] = np.concatenate([hand, turned, observed["robot0_gripper_qpos"]])
    goals = vector[_HAND : _HAND + _GOALS * _GOAL].reshape(_GOALS, _GOAL)
    for row, goal in zip(goals, raw.parsed_problem["goal_state"], strict=False):
        row[:] = _goal(raw, hand, goal)
    others = vector[_HAND + _GOALS * _GOAL :].reshape(_OBJECTS, 3)
    for row, name in zip(others, raw.objects_dict, strict=False):
        row[:] = raw.object_states_dict[name].get_geom_state()["pos"] - hand
    return vector.astype(np.float32)


def _goal(raw: Any, hand: np.ndarray, goal: Sequence[str]) -> np.ndarray:
    transforms = libero_module("robosuite.utils.transform_utils")
    moved = raw.object_states_dict[goal[1]]
    pose = moved.get_geom_state()
    is_site = moved.object_state_type == "site"
    quaternion = pose["quat"] if is_site else transforms.convert_quat(pose["quat"], to="xyzw")
    rotation = transforms.quat2mat(quaternion)
    target = raw.object_states_dict[goal[-1]].get_geom_state()["pos"]
    parts = (
        [1.0, float(raw._eval_predicate(goal))],
        pose["pos"] - hand,
        _columns(rotation),
        target - pose["pos"],
        [_joint(raw, goal) if len(goal) == 2 else 0.0],
    )
    return np.concatenate(parts)


def _joint(raw: Any, goal: Sequence[str]) -> float:
    sites = raw.object_sites_dict
    owner = sites[goal[1]] if goal[1] in sites else raw.get_object(goal[1])
    return float(raw.sim.data.qpos[raw.sim.model.get_joint_qpos_addr(owner.joints[0])])


def _columns(rotation: np.ndarray) -> np.ndarray:
    return np.concatenate([rotation[:, 0], rotation[:, 1]])
