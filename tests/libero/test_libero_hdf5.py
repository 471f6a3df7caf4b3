"""LIBERO's HDF5 demonstrations: observation and action in step, images turned."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from rftf_torchrl import DemonstrationError, libero_demonstrations, load_demonstrations

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.libero

TASK = "turn_on_the_stove"
LENGTH = 6


@pytest.fixture
def source(tmp_path):
    """A file as LIBERO's script writes it: observation j is the one after action j."""
    folder = tmp_path / "source"
    folder.mkdir()
    random = np.random.default_rng(0)
    with h5py.File(folder / f"{TASK}_demo.hdf5", "w") as file:
        for name in ("demo_0", "demo_10", "demo_2"):
            demo = file.create_group(f"data/{name}")
            demo["actions"] = random.uniform(-1, 1, (LENGTH, 7))
            demo["obs/ee_states"] = random.normal(size=(LENGTH, 6))
            demo["obs/gripper_states"] = random.normal(size=(LENGTH, 2))
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                demo[f"obs/{camera}"] = random.integers(0, 256, (LENGTH, 16, 16, 3), np.uint8)
    return folder


def test_what_is_written(source, tmp_path):
    settings = {"suite": "libero_goal", "image_size": 16}
    assert libero_demonstrations(source, tmp_path / "out", held_out=1, **settings) == 3
    found = load_demonstrations(tmp_path / "out")
    assert [(e.split, len(e), e.success) for e in found.episodes] == [
        ("train", LENGTH, True),
        ("train", LENGTH, True),
        ("test", LENGTH, True),
    ]
    assert found.tasks[0].instruction == "turn on the stove"
    with h5py.File(source / f"{TASK}_demo.hdf5", "r") as file:
        demo = file["data/demo_2"]
        frames = found.frames[LENGTH : 2 * LENGTH]
        actions = torch.from_numpy(demo["actions"][()].astype(np.float32))
        assert (frames["action"][:-1] == actions[1:]).all()
        assert (frames["action"][-1] == 0).all()
        state = np.concatenate([demo["obs/ee_states"], demo["obs/gripper_states"]], -1)
        assert (frames["observation", "state"].numpy() == state.astype(np.float32)).all()
        for key, camera in (("image", "agentview_rgb"), ("wrist_image", "eye_in_hand_rgb")):
            turned = demo[f"obs/{camera}"][()][:, ::-1, ::-1].transpose(0, 3, 1, 2)
            assert (frames["observation", key].numpy() == turned).all()
    libero_demonstrations(source, tmp_path / "one", wrist=False, limit=1, held_out=0, **settings)
    one = load_demonstrations(tmp_path / "one")
    assert (len(one.episodes), one.frames["observation"].keys()) == (1, {"image", "state"})


def test_data_that_cannot_be_used(source, tmp_path):
    arguments = {"suite": "libero_goal", "image_size": 16, "held_out": 1}
    message = f"LIBERO's data in {tmp_path}: 1 problem found:\n  - there is no *_demo.hdf5"
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        libero_demonstrations(tmp_path, tmp_path / "out", **arguments)
    broken = source / "put_the_bowl_on_the_plate_demo.hdf5"
    broken.write_bytes(b"no HDF5")
    message = f"{broken}: 1 problem found:\n  - it cannot be read ("
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}"):
        libero_demonstrations(source, tmp_path / "none", **arguments)
    broken.unlink()
    with pytest.raises(DemonstrationError, match=r"held_out=5 of 2 demonstrations leaves none"):
        libero_demonstrations(source, tmp_path / "few", limit=2, **(arguments | {"held_out": 5}))
    with h5py.File(source / f"{TASK}_demo.hdf5", "a") as file:
        del file["data/demo_2/obs/ee_states"]
    place = f"{source / TASK}_demo.hdf5: demo_2"
    message = f"{place}: 1 problem found:\n  - obs/ee_states is missing"
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        libero_demonstrations(source, tmp_path / "out", **arguments)
    with h5py.File(source / f"{TASK}_demo.hdf5", "a") as file:
        del file["data/demo_2/obs/agentview_rgb"], file["data/demo_2/actions"]
    message = f"{place}: 3 problems found:\n  - actions is missing\n  - obs/ee_states is missing"
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}"):
        libero_demonstrations(source, tmp_path / "three", **arguments)
    with h5py.File(source / f"{TASK}_demo.hdf5", "a") as file:
        file.create_group("data/mask")
    message = f"{source / TASK}_demo.hdf5: 1 problem found:\n  - data/mask: expected demo_<number>"
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        libero_demonstrations(source, tmp_path / "mask", **arguments)
    with pytest.raises(ValueError, match=f"^libero_object has no task '{TASK}'; choose from "):
        libero_demonstrations(source, tmp_path / "other", suite="libero_object", image_size=16)
