import re
import shutil

import numpy as np
import pytest
import torch
from synthetic_calvin import write_synthetic_calvin

from rftf_torchrl import (
    CalvinDataset,
    DemonstrationError,
    HashTokenizer,
    state_vector,
)


def stored(root, number):
    with np.load(root / "training" / f"episode_{number:07d}.npz") as frame:
        return dict(frame)


def test_frames_come_in_our_keys(pristine):
    frames = CalvinDataset(pristine, image_size=10, wrist_size=10).read_frames(66, 69)
    layout = {key: (tuple(v.shape), v.dtype) for key, v in frames.items(True, True)}
    assert layout == {
        ("observation", "state"): ((3, 11), torch.float32),
        ("observation", "image"): ((3, 3, 10, 10), torch.uint8),
        ("observation", "wrist_image"): ((3, 3, 10, 10), torch.uint8),
        "action": ((3, 7), torch.float32),
        "robot_obs": ((3, 15), torch.float64),
        "scene_obs": ((3, 24), torch.float64),
    }
    for row, number in zip(frames, range(66, 69), strict=True):
        there = stored(pristine, number)
        assert np.array_equal(row["robot_obs"].numpy(), there["robot_obs"])
        assert np.array_equal(row["scene_obs"].numpy(), there["scene_obs"])
        assert np.array_equal(row["action"].numpy(), there["rel_actions"].astype(np.float32))
        image = there["rgb_static"].transpose(2, 0, 1)
        assert np.array_equal(row["observation", "image"].numpy(), image)
        state = state_vector(there["robot_obs"], there["scene_obs"], "D", False)
        assert np.array_equal(row["observation", "state"].numpy(), state)


def test_without_pictures_the_state_holds_the_scene(tmp_path):
    root = write_synthetic_calvin(tmp_path, length=5, image_size=None, scene="A")
    frames = CalvinDataset(root).read_frames(64, 69)
    robot, scene = frames["robot_obs"].numpy(), frames["scene_obs"].numpy()
    state = state_vector(robot, scene, "A", True)
    assert np.array_equal(frames["observation", "state"].numpy(), state)
    assert sorted(frames["observation"].keys()) == ["state"]


def test_pictures_are_resized(pristine):
    frames = CalvinDataset(pristine, image_size=4).read_frames(64, 100)
    small = frames["observation", "image"]
    assert small.shape == (36, 3, 4, 4)
    assert small[:, 0, 0, 0].tolist() == [round(255 * step / 35) for step in range(36)]


def test_spans_have_instruction_and_task(pristine):
    dataset = CalvinDataset(pristine, tokenizer=HashTokenizer(max_length=5))
    assert [(s.start, s.stop, s.task) for s in dataset.spans] == [
        (64, 82, "open_drawer"),
        (82, 100, "turn_on_led"),
        (100, 118, "open_drawer"),
        (118, 136, "turn_on_led"),
    ]
    span = dataset.read_span(dataset.spans[1])
    tokens, mask = HashTokenizer(max_length=5)("switch the green light on")
    assert torch.equal(span["instruction", "tokens"], tokens.expand(18, 5))
    assert torch.equal(span["instruction", "mask"], mask.expand(18, 5))
    assert span["task_id"].unique().tolist() == [dataset.spans[1].task_id]
    frames = dataset.read_frames(82, 100)
    assert torch.equal(span["action"], frames["action"])


def test_windows_stay_inside_episodes(pristine):
    dataset = CalvinDataset(pristine)
    windows = list(dataset.windows(16))
    assert len(windows) == 4
    starts = [64, 80, 100, 116]
    for window, start in zip(windows, starts, strict=True):
        assert torch.equal(window["action"], dataset.read_frames(start, start + 16)["action"])
    assert len(list(dataset.windows(36, stride=1))) == 2
    assert len(list(dataset.windows(35, stride=1))) == 4


def test_frames_are_read_when_asked_for(calvin_root):
    for number in range(70, 136):
        (calvin_root / "training" / f"episode_{number:07d}.npz").unlink()
    assert len(CalvinDataset(calvin_root).read_frames(64, 70)) == 6


def test_a_split_without_scenes_needs_one(calvin_root):
    (calvin_root / "training" / "scene_info.npy").unlink()
    message = (
        f"CALVIN data in {calvin_root / 'training'}: 1 problem found:\n  - "
        "scene_info.npy: missing; give scene='A' to 'D' where the split has one scene"
    )
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        CalvinDataset(calvin_root)
    assert CalvinDataset(calvin_root, scene="D").scenes == ("D", "D")


def test_a_split_without_annotations_has_frames(calvin_root):
    shutil.rmtree(calvin_root / "training" / "lang_annotations")
    dataset = CalvinDataset(calvin_root)
    assert len(dataset.read_frames(64, 66)) == 2
    message = (
        f"CALVIN data in {calvin_root / 'training'}: 1 problem found:\n  - "
        "lang_annotations/auto_lang_ann.npy: missing; without annotations there are frames only"
    )
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        _ = dataset.spans


def frames_message(root, start, stop):
    return (
        f"Frames {start} to {stop} (exclusive) of {root / 'training'}: expected an end from "
        f"{start + 1} to 100, where episode 0 ends."
    )


def test_frames_outside_of_an_episode_are_refused(pristine):
    dataset = CalvinDataset(pristine)
    for start, stop in ((70, 70), (70, 60), (70, 101)):
        message = frames_message(pristine, start, stop)
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            dataset.read_frames(start, stop)
    message = f"Frame 136 is in no episode of {pristine / 'training'}: they have frames 64 to 135."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        dataset.read_frames(136, 137)


def test_wrong_arguments_are_refused(pristine):
    folder = pristine / "validation"
    message = (
        f"No CALVIN data in {folder}: expected a folder with ep_start_end_ids.npy and "
        "episode_*.npz files."
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        CalvinDataset(pristine, "validation")
    with pytest.raises(ValueError, match=r"^image_size is 0, expected 1 or more, or None\.$"):
        CalvinDataset(pristine, image_size=0)
    with pytest.raises(ValueError, match=r"^length is 0 and stride 0, expected 1 or more\.$"):
        next(CalvinDataset(pristine).windows(0))


def test_one_camera_of_the_two_hides_the_scene(pristine):
    for sizes, numbers in (({}, 53), ({"image_size": 8}, 11), ({"wrist_size": 8}, 11)):
        frames = CalvinDataset(pristine, **{"image_size": None, **sizes}).read_frames(66, 69)
        assert frames["observation", "state"].shape == (3, numbers)
