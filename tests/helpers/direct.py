"""Run calvin_env by itself, as its authors do, in a process of its own: ``direct.py in out``.

The input holds scene, robot_obs [15], scene_obs [24], actions [T, 7] and starts [K], the steps at
which a subtask begins. The output holds robot_obs and scene_obs [T + 1, ...], the tasks that the
oracle finds done after each step since the last of the starts, and both cameras after every 40th
step.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

EVERY = 40


def run_directly(folder, scene, start, actions, starts=(0,)):
    """Run this file in another process and return what it found."""
    source, target = folder / "in.npz", folder / "out.npz"
    robot_obs, scene_obs = start
    np.savez(
        source,
        scene=scene,
        robot_obs=robot_obs,
        scene_obs=scene_obs,
        actions=actions,
        starts=starts,
    )
    command = [sys.executable, __file__, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return dict(np.load(target))


def make(scene):
    import calvin_env
    import hydra
    from hydra import compose, initialize_config_dir

    conf = Path(calvin_env.__file__).parents[1] / "conf"
    with initialize_config_dir(str(conf), version_base="1.1"):
        config = compose(
            "config_data_collection",
            overrides=[
                f"scene=calvin_scene_{scene}",
                "cameras=static_and_gripper",
                "use_vr=false",
                "env.use_egl=false",
                "env.use_scene_info=true",
            ],
        )
    return hydra.utils.instantiate(config.env), hydra.utils.instantiate(config.tasks)


def main(source, target):
    given = np.load(source)
    env, oracle = make(str(given["scene"]))
    drawing = env.cameras
    observation = env.reset(given["robot_obs"], given["scene_obs"])
    out = {key: [observation[key]] for key in ("robot_obs", "scene_obs")}
    done, pictures = [], {}
    info = start = env.get_info()
    for step, action in enumerate(given["actions"]):
        if step in given["starts"]:
            start = info
        env.cameras = drawing if (step + 1) % EVERY == 0 else []
        observation, _, _, info = env.step(action)
        for name, picture in (observation["rgb_obs"] | observation["depth_obs"]).items():
            pictures.setdefault(name, []).append(picture)
        done.append(" ".join(sorted(oracle.get_task_info(start, info))))
        for key, values in out.items():
            values.append(observation[key])
    np.savez(target, done=done, **out, **pictures)


if __name__ == "__main__":
    main(*sys.argv[1:])
