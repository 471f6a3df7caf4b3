"""CALVIN's own loader reads what we write. It needs a checkout on the path, as ``PYTHONPATH=
<calvin>/calvin_models``; of what that imports, only ``pyhash``, which does not build any more, is
replaced.
"""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from synthetic_calvin import write_synthetic_calvin

from rftf_torchrl import CalvinDataset, fnv1_32, hashed_embedding

pytestmark = [
    pytest.mark.calvin,
    pytest.mark.skipif(
        importlib.util.find_spec("calvin_agent") is None,
        reason="needs a checkout of github.com/mees/calvin, its calvin_models on the path",
    ),
]

OBSERVATIONS = {
    "rgb_obs": ["rgb_static", "rgb_gripper"],
    "depth_obs": [],
    "state_obs": ["robot_obs"],
    "actions": ["rel_actions"],
    "language": ["language"],
}
PROPRIOCEPTION = {
    "normalize": False,
    "normalize_robot_orientation": True,
    "keep_indices": [[0, 15]],
}


@pytest.fixture
def loader(monkeypatch):
    """Opens a folder with CALVIN's own class."""
    pyhash = ModuleType("pyhash")
    pyhash.fnv1_32 = lambda: fnv1_32
    monkeypatch.setitem(sys.modules, "pyhash", pyhash)
    from calvin_agent.datasets.disk_dataset import DiskDataset

    def open_folder(folder, key, **settings):
        return DiskDataset(
            folder,
            OmegaConf.create(OBSERVATIONS),
            OmegaConf.create(PROPRIOCEPTION),
            key,
            "lang_annotations",
            0,
            **settings,
        )

    return open_folder


@pytest.fixture
def written(tmp_path):
    return write_synthetic_calvin(tmp_path, "validation", episodes=2, length=68, scene="B")


def test_every_frame_is_read(written, loader):
    folder = written / "validation"
    theirs = loader(folder, "vis", min_window_size=16, max_window_size=16)
    ours = CalvinDataset(written, "validation", image_size=10, wrist_size=10)
    assert len(theirs) == 2 * (68 - 16), "it leaves out the last window of an episode"
    for index, start in ((0, 64), (51, 115), (52, 132), (103, 183)):
        window, expected = theirs[index], ours.read_frames(start, start + 16)
        assert torch.equal(window["actions"], expected["action"])
        assert torch.equal(window["robot_obs"], expected["robot_obs"].float())
        assert torch.equal(window["state_info"]["scene_obs"], expected["scene_obs"])
        for key, name in (("rgb_static", "image"), ("rgb_gripper", "wrist_image")):
            assert torch.equal(window["rgb_obs"][key], expected["observation", name])


def test_every_annotation_is_read(written, loader):
    theirs = loader(written / "validation", "lang", min_window_size=16, max_window_size=32)
    spans = CalvinDataset(written, "validation").spans
    assert len(theirs) == 4 * (34 + 1 - 16)
    for index in range(0, len(theirs), 19):
        sample = theirs[index]
        expected = hashed_embedding(spans[index // 19].sentence)
        assert np.array_equal(sample["lang"].numpy(), expected)
        assert sample["actions"].shape == (32, 7)
        assert sample["rgb_obs"]["rgb_static"].shape == (32, 3, 10, 10)


def test_the_statistics_normalise(written):
    import hydra

    statistics = OmegaConf.load(written / "validation" / "statistics.yaml")
    robot = CalvinDataset(written, "validation")
    frames = torch.cat([robot.read_frames(64, 132), robot.read_frames(132, 200)])
    normalise = hydra.utils.instantiate(statistics.robot_obs[0])
    normalised = normalise(frames["robot_obs"].float())
    assert normalised[:, :14].mean(0) == pytest.approx(np.zeros(14), abs=1e-4)
    assert normalised[:, :14].std(0, correction=0) == pytest.approx(np.ones(14), abs=1e-4)
