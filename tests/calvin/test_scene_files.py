"""A clone that lacks a scene says which file, and what to type, before PyBullet is asked."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from rftf_torchrl import CalvinNotInstalledError, CalvinSimulator
from rftf_torchrl.calvin import simulator
from rftf_torchrl.calvin.settings import env_settings

TABLE = "data/calvin_table_A/urdf/calvin_table_A.urdf"
BLOCK = "data/blocks/block_red_middle.urdf"
ROBOT = "data/franka_panda/panda_longer_finger.urdf"
MESH = "data/calvin_table_A/meshes/base_link.obj"
SCENE = {
    "objects": {
        "fixed_objects": {"table": {"file": TABLE.removeprefix("data/")}},
        "movable_objects": {"block_red": {"file": BLOCK.removeprefix("data/")}},
    }
}
CONF = {
    "conf/robot/panda.yaml": {"filename": "franka_panda/panda.urdf"},
    "conf/robot/panda_longer_finger.yaml": {
        "defaults": ["panda"],
        "filename": ROBOT.removeprefix("data/"),
    },
    "conf/scene/calvin_scene_A.yaml": SCENE,
    "conf/env/play_table_env.yaml": {"_target_": "x", "scene_cfg": "${scene}"},
}
MODELS = {
    TABLE: '<robot><mesh filename="../meshes/base_link.obj"/></robot>',
    BLOCK: "<robot/>",
    ROBOT: '<robot><mesh filename="package://meshes/link0.obj"/></robot>',
    MESH: "",
}


@pytest.fixture
def clone(tmp_path):
    """A clone with what scene A needs."""
    root = tmp_path / "calvin_env"
    contents = {name: OmegaConf.to_yaml(OmegaConf.create(conf)) for name, conf in CONF.items()}
    for name, content in {**contents, **MODELS}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return root


def test_a_whole_scene(clone):
    assert env_settings(clone, "A")["scene_cfg"] == SCENE


@pytest.mark.parametrize("missing", [*CONF, *MODELS])
def test_a_missing_file_is_named(clone, monkeypatch, missing):
    (clone / missing).unlink()
    monkeypatch.setattr(simulator, "require_calvin_env", lambda: clone)
    message = (
        f"calvin_env was found in {clone}, but not its file {missing!r}. Restore it:\n"
        f"    git -C {clone} checkout -- {missing}"
    )
    with pytest.raises(CalvinNotInstalledError, match=f"^{re.escape(message)}$"):
        env_settings(clone, "A")
    pytest.importorskip("calvin_env", reason="CalvinSimulator imports it first")
    with pytest.raises(CalvinNotInstalledError, match=f"^{re.escape(message)}$"):
        CalvinSimulator("A")


def test_a_missing_scene_leaves_the_others(clone):
    message = "not its file 'conf/scene/calvin_scene_B.yaml'. Restore it:"
    with pytest.raises(CalvinNotInstalledError, match=re.escape(message)):
        env_settings(clone, "B")
    assert env_settings(clone, "A")


def test_a_damaged_model(clone):
    (clone / TABLE).write_text("<robot>", encoding="utf-8")
    message = rf"^{re.escape(str(clone / TABLE))} is damaged \(.*\): restore calvin_env's own$"
    with pytest.raises(ValueError, match=message):
        env_settings(clone, "A")
