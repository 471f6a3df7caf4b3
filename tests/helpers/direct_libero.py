"""LIBERO without this library: its own environment, and goals that are reached by hand."""

from __future__ import annotations

import numpy as np

from rftf_torchrl.libero.install import libero_module
from rftf_torchrl.libero.suites import task_file

TASKS = {
    "libero_object": "pick_up_the_milk_and_place_it_in_the_basket",
    "libero_spatial": "pick_up_the_black_bowl_next_to_the_plate_and_place_it_on_the_plate",
    "libero_goal": "turn_on_the_stove",
}
REST = np.array([0.0] * 6 + [-1.0], dtype=np.float32)


def actions(count, seed=0):
    """Actions float32 [count, 7], small enough that nothing is thrown off the table."""
    return np.random.default_rng(seed).uniform(-0.4, 0.4, (count, 7)).astype(np.float32)


def fulfil(raw):
    """Put what the task's goal speaks of where it belongs: joints at once, objects above."""
    (goal,) = raw.parsed_problem["goal_state"]
    if len(goal) == 2:
        raw.sim.data.set_joint_qpos(raw.get_object(goal[1]).joints[0], 1.0)
        return
    joint = raw.objects_dict[goal[1]].joints[-1]
    target = raw.object_states_dict[goal[2]].get_geom_state()["pos"]
    pose = raw.sim.data.get_joint_qpos(joint).copy()
    pose[:3] = target + np.array([0.0, 0.0, 0.05])
    raw.sim.data.set_joint_qpos(joint, pose)


def magic_expert(raw):
    """An expert that rests for six steps, and by then the goal is reached; see ``start_expert``."""
    steps = []

    def act():
        steps.append(REST.astype(float))
        if len(steps) == 6:
            fulfil(raw)
        return steps[-1]

    return act


def direct_env(suite, task, size=None, **arguments):
    """LIBERO's own environment as evaluation code makes it, without a size without images."""
    envs = libero_module("libero.libero.envs.env_wrapper")
    file = str(task_file(suite, task))
    if size is None:
        return envs.ControlEnv(
            bddl_file_name=file, use_camera_obs=False, has_offscreen_renderer=False, **arguments
        )
    return envs.OffScreenRenderEnv(
        bddl_file_name=file, camera_heights=size, camera_widths=size, **arguments
    )


def direct_start(env, seed, state=None):
    """Begin an episode as evaluation code does: seed, reset, initial state, ten steps."""
    env.seed(seed)
    observed = env.reset()
    if state is not None:
        observed = env.set_init_state(state)
    for _ in range(10):
        observed, *_ = env.step(REST)
    return observed
