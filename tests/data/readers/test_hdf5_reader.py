"""robomimic's and LIBERO's HDF5 files."""

import h5py
import numpy as np
import pytest
import torch
from _videos import write_hdf5

from rftf_torchrl import BadEpisode, DemonstrationError, video_episodes


@pytest.mark.parametrize("upside_down", [True, False])
def test_frames_right_way_up(tmp_path, upside_down):
    made = write_hdf5(tmp_path / "a.hdf5", episodes=11, upside_down=upside_down)
    found = list(video_episodes(tmp_path / "a.hdf5"))
    assert [e.name for e in found][1:3] == ["a.hdf5: demo_1", "a.hdf5: demo_2"]  # not demo_10
    assert {e.instruction for e in found} == {"put the bowl down"}
    for episode, pixels in zip(found, made, strict=True):
        assert torch.equal(episode.read().permute(0, 2, 3, 1), torch.from_numpy(pixels))
    turned = next(video_episodes(tmp_path / "a.hdf5", options={"upside_down": not upside_down}))
    assert torch.equal(turned.read().permute(0, 2, 3, 1).flip(1), torch.from_numpy(made[0]))


def test_a_folder_rates_and_outcomes(tmp_path):
    write_hdf5(tmp_path / "a.hdf5", sentence=False, camera="agentview_image")
    write_hdf5(tmp_path / "b.h5", episodes=1)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_1"].attrs["success"] = False
        file["data/demo_0/obs/other"] = np.zeros((5, 4, 4, 3), np.uint8)
        file["data/demo_0/obs/state"] = np.zeros((5, 9))
    options = {"instruction": "lift", "camera": "agentview_image", "picture_fps": 10.0}
    found = list(video_episodes(tmp_path, size=8, fps=5, options=options))
    assert [(e.name, e.index) for e in found] == [
        ("a.hdf5: demo_0", 0),
        ("a.hdf5: demo_1", 1),
        ("b.h5: demo_0", 2),
    ]
    assert [e.success for e in found[:2]] == [None, False]
    assert [e.read().shape for e in found[:2]] == [(3, 3, 8, 8), (4, 3, 8, 8)]
    choose = "choose among agentview_rgb (data.options.camera)"
    assert found[2].problem == f"no camera is 'agentview_image': {choose}"
    first, *_ = video_episodes(tmp_path)
    assert str(first) == (
        "a.hdf5: demo_0: expected one camera: choose among agentview_image, other "
        "(data.options.camera)"
    )


def test_a_file_that_cannot_be_read_may_have_had_the_episodes_asked_for(tmp_path):
    write_hdf5(tmp_path / "set" / "a.hdf5")
    write_hdf5(tmp_path / "whole.hdf5")
    whole = (tmp_path / "whole.hdf5").read_bytes()
    (tmp_path / "set" / "b.hdf5").write_bytes(whole[:900])
    count = len(list(video_episodes(tmp_path / "whole.hdf5")))
    *found, bad = video_episodes(tmp_path / "set", episodes=range(2 * count))
    assert len(found) == count
    assert "truncated file" in bad.problem


def test_what_cannot_be_used(tmp_path):
    write_hdf5(tmp_path / "a.hdf5", sentence=False)
    write_hdf5(tmp_path / "outside.hdf5", episodes=6)
    write_hdf5(tmp_path / "set" / "b.hdf5", episodes=6)
    with h5py.File(tmp_path / "set" / "b.hdf5", "a") as file:
        place = "data/demo_{}/obs/agentview_rgb"
        del file[place.format(0)]
        file[place.format(0)] = h5py.ExternalLink("../outside.hdf5", place.format(0))
        del file[place.format(1)]
        layout = h5py.VirtualLayout((6, 16, 16, 3), np.uint8)
        layout[:] = h5py.VirtualSource("../outside.hdf5", place.format(1), (6, 16, 16, 3))
        file["data/demo_1/obs"].create_virtual_dataset("agentview_rgb", layout)
        del file[place.format(2)]
        raw = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
        file["data/demo_2/obs"].create_dataset(
            "agentview_rgb", (2, 1, 1, 3), np.uint8, external=raw
        )
        del file[place.format(3)]
        file[place.format(3)] = np.zeros((3, 4, 4, 4), np.uint8)
        del file["data/demo_4/obs"]
        del file[place.format(5)]
        file[place.format(5)] = np.zeros((3, 4, 4, 3))
    (tmp_path / "set" / "c.hdf5").write_bytes((tmp_path / "a.hdf5").read_bytes()[:900])
    with h5py.File(tmp_path / "set" / "d.hdf5", "w") as file:
        file["other"] = 1
    *found, cut, empty = video_episodes(tmp_path / "set")
    assert all(isinstance(each, BadEpisode) for each in [*found, cut, empty])
    link = "is missing or a link, expected an entry of the file itself"
    assert [each.problem for each in found] == [
        f"agentview_rgb {link}",
        "agentview_rgb lies in another file, which is not read",
        "agentview_rgb lies in another file, which is not read",
        "agentview_rgb is [3, 4, 4, 4], expected [T, h, w, 3]",
        f"obs {link}",
        "expected one camera: choose among none (data.options.camera)",
    ]
    assert str(cut).startswith("c.hdf5: it cannot be read (")
    assert str(empty) == f"d.hdf5: it cannot be read (data {link})"
    assert str(next(video_episodes(tmp_path / "a.hdf5"))) == (
        "a.hdf5: demo_0: the file has no language_instruction: give an instruction "
        "(data.options.instruction)"
    )
    with h5py.File(tmp_path / "outside.hdf5", "a") as file:
        file["data/demo_6"] = h5py.ExternalLink("missing.hdf5", "data/demo_0")
    *sound, broken = video_episodes(tmp_path / "outside.hdf5")
    assert [len(each.read()) for each in sound] == [5, 6, 7, 8, 9, 10]
    assert str(broken) == f"outside.hdf5: demo_6: demo_6 {link}"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DemonstrationError, match=r"there is no \.hdf5 or \.h5 file"):
        next(video_episodes(tmp_path / "empty", "hdf5"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([1]), True),
        (np.float32(0), False),
        (b"failure", False),
        ("success", True),
        (float("nan"), None),
        (-1, "success is -1, expected true, false or nothing"),
    ],
    ids=["array", "number", "bytes", "text", "nan", "no-outcome"],
)
def test_outcomes_of_other_types(tmp_path, value, expected):
    write_hdf5(tmp_path / "a.hdf5", episodes=1)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0"].attrs["success"] = value
    (found,) = video_episodes(tmp_path)
    assert (getattr(found, "problem", None) or found.success) == expected
