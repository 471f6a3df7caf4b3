"""calvin_env's own settings of a scene, read from the files of the user's clone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.calvin.clone_files import require_file, require_models

Scene = Literal["A", "B", "C", "D"]
SCENES: tuple[Scene, ...] = get_args(Scene)


def check_scene(scene: str) -> None:
    """Refuse an unknown scene."""
    if scene not in SCENES:
        raise ValueError(f"scene must be 'A', 'B', 'C' or 'D', got {scene!r}")


def _load(root: Path, *parts: str) -> DictConfig:
    path = root.joinpath("conf", *parts)
    require_file(root, path)
    settings = OmegaConf.load(path)
    if not isinstance(settings, DictConfig):
        raise ValueError(f"{path} holds no mapping: is this a clone of calvin_env?")
    return settings


def env_settings(root: Path, scene: Scene) -> dict[str, Any]:
    """Arguments of calvin_env's environment: without its cameras, display and virtual reality.

    The files are merged here rather than composed by hydra, which can be initialised only once a
    process: a recipe already did.

    Raises:
        CalvinNotInstalledError: where a file of the scene is missing.
    """
    robot = _load(root, "robot", "panda_longer_finger.yaml")
    del robot["defaults"]
    settings = OmegaConf.create(
        {
            "data_path": "data",
            "use_vr": False,
            "cameras": {},
            "scene": _load(root, "scene", f"calvin_scene_{scene}.yaml"),
            "robot": OmegaConf.merge(_load(root, "robot", "panda.yaml"), robot),
            "env": _load(root, "env", "play_table_env.yaml"),
        }
    )
    OmegaConf.resolve(settings)
    groups = (settings.scene.objects.fixed_objects, settings.scene.objects.movable_objects)
    models = [item.file for group in groups for item in group.values()]
    require_models(root, [*models, settings.robot.filename])
    own = {"use_egl": False, "use_scene_info": True}
    return {k: v for k, v in settings.env.items() if not k.startswith("_")} | own


def camera_settings(root: Path, name: str, size: int) -> DictConfig:
    """The camera ``"static"`` or ``"gripper"`` with images of size x size."""
    camera = _load(root, "cameras", "cameras", f"{name}.yaml")
    camera.update(width=size, height=size)
    return camera


def task_settings(root: Path) -> DictConfig:
    """The definitions of the tasks, which calvin_env's oracle takes."""
    return _load(root, "tasks", "new_playtable_tasks.yaml")
