import os
import re

import numpy as np
import pytest
import yaml

from rftf_torchrl import CalvinDataset, CalvinWriter, DemonstrationError, safe_load_npy
from rftf_torchrl.calvin.data import describe as describe_module
from rftf_torchrl.calvin.data import writer as writer_module

ROBOT = np.linspace(0, 0.1, 15)
SCENE = np.linspace(0, 0.2, 24)
ACTION = np.array([0.5, -0.5, 0, 0, 0, 1, -1])
PICTURE = np.arange(3 * 4 * 6, dtype=np.uint8).reshape(3, 4, 6)
DEPTH = np.ones((4, 6), dtype=np.float32)


def add(writer, count=1, **pictures):
    return [writer.add_frame(ROBOT, SCENE, ACTION, ACTION, **pictures) for _ in range(count)]


def test_every_file_of_the_format_is_written(tmp_path):
    with CalvinWriter(tmp_path / "new" / "data", "validation", scene="B") as writer:
        numbers = add(writer, 3, rgb_static=PICTURE, rgb_gripper=PICTURE, depth_static=DEPTH)
        writer.annotate(64, 67, "open_drawer", "pull the drawer open")
        writer.set_scene("A")
        numbers += add(writer, 2, rgb_static=PICTURE, rgb_gripper=PICTURE, depth_static=DEPTH)
        writer.annotate(67, 69, "turn_on_led", "green light on")
    assert numbers == [64, 65, 66, 67, 68]
    folder = tmp_path / "new" / "data" / "validation"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert files == [
        ".hydra",
        ".hydra/merged_config.yaml",
        "digests.json",
        "ep_lens.npy",
        "ep_start_end_ids.npy",
        *(f"episode_{number:07d}.npz" for number in numbers),
        "lang_annotations/auto_lang_ann.npy",
        "scene_info.npy",
        "statistics.yaml",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["validation"]
    assert np.load(folder / "ep_start_end_ids.npy").tolist() == [[64, 66], [67, 68]]
    assert np.load(folder / "ep_lens.npy").tolist() == [3, 2]
    scenes = np.load(folder / "scene_info.npy", allow_pickle=True).item()
    assert scenes == {"calvin_scene_B": [64, 66], "calvin_scene_A": [67, 68]}
    with np.load(folder / "episode_0000065.npz") as frame:
        layout = {key: (value.shape, str(value.dtype)) for key, value in frame.items()}
        assert np.array_equal(frame["rgb_static"], PICTURE.transpose(1, 2, 0))
        assert frame["rel_actions"].tolist() == ACTION.tolist()
        assert frame["scene_obs"].tolist() == SCENE.tolist()
    assert layout == {
        "actions": ((7,), "float64"),
        "rel_actions": ((7,), "float64"),
        "robot_obs": ((15,), "float64"),
        "scene_obs": ((24,), "float64"),
        "rgb_static": ((4, 6, 3), "uint8"),
        "rgb_gripper": ((4, 6, 3), "uint8"),
        "depth_static": ((4, 6), "float32"),
    }
    language = np.load(folder / "lang_annotations" / "auto_lang_ann.npy", allow_pickle=True).item()
    embedding = language["language"].pop("emb")
    assert (embedding.shape, embedding.dtype) == ((2, 1, 384), np.float32)
    assert language == {
        "language": {
            "ann": ["pull the drawer open", "green light on"],
            "task": ["open_drawer", "turn_on_led"],
        },
        "info": {"episodes": [], "indx": [(64, 67), (67, 69)]},
    }
    statistics = yaml.safe_load((folder / "statistics.yaml").read_text(encoding="utf-8"))
    assert statistics["robot_obs"][0]["mean"] == pytest.approx(ROBOT.tolist())
    assert statistics["scene_obs"][0]["std"] == pytest.approx([0] * 24)
    assert statistics["act_min_bound"] == ACTION.tolist()
    assert yaml.safe_load(
        (folder / ".hydra" / "merged_config.yaml").read_text(encoding="utf-8")
    ) == {
        "scene": {"name": "calvin_scene_A"},
        "cameras": {
            "static": {"name": "static", "height": 4, "width": 6},
            "gripper": {"name": "gripper", "height": 4, "width": 6},
        },
    }


def test_a_configuration_is_written_as_given(tmp_path):
    with CalvinWriter(tmp_path, config={"env": {"seed": 0}}) as writer:
        add(writer)
    config = tmp_path / "training" / ".hydra" / "merged_config.yaml"
    assert yaml.safe_load(config.read_text(encoding="utf-8")) == {"env": {"seed": 0}}


def test_a_frame_without_actions_stays(tmp_path):
    with CalvinWriter(tmp_path) as writer:
        writer.add_frame(ROBOT, SCENE)
    with np.load(tmp_path / "training" / "episode_0000064.npz") as frame:
        assert frame["rel_actions"].tolist() == [0, 0, 0, 0, 0, 0, 1]
        assert frame["actions"].tolist() == [*ROBOT[:6], 1]


def test_nothing_has_the_final_name_before_close(tmp_path):
    writer = CalvinWriter(tmp_path)
    add(writer)
    assert not (tmp_path / "training").exists()
    writer.close()
    writer.close()
    assert (tmp_path / "training").is_dir()
    message = f"The writer of {tmp_path / 'training'} is closed: no frame can be added."
    with pytest.raises(RuntimeError, match=re.escape(message)):
        add(writer)
    with pytest.raises(RuntimeError, match="is closed: nothing can be annotated"):
        writer.annotate(64, 65, "open_drawer", "open")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_keeps_every_frame(tmp_path, error):
    def record():
        with CalvinWriter(tmp_path) as writer:
            add(writer, 3)
            writer.annotate(64, 66, "open_drawer", "open")
            writer.end_episode()
            add(writer, 2)
            raise error

    with pytest.raises(error):
        record()
    dataset = CalvinDataset(tmp_path)
    assert not dataset.complete
    assert dataset.episodes.tolist() == [[64, 66], [67, 68]]
    assert len(dataset.spans) == 1
    assert len(dataset.read_frames(67, 69)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


def test_ctrl_c_while_a_frame_is_written_keeps_the_others(tmp_path, monkeypatch):
    original = np.savez_compressed

    def interrupted(file, **frame):
        if writer._next == 66:
            file.write(b"half a frame")
            raise KeyboardInterrupt
        original(file, **frame)

    monkeypatch.setattr(writer_module.np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt), CalvinWriter(tmp_path) as writer:
        add(writer, 3)
    frames = sorted(path.name for path in (tmp_path / "training").glob("*.npz*"))
    assert frames == ["episode_0000064.npz", "episode_0000065.npz"]
    assert CalvinDataset(tmp_path).episodes.tolist() == [[64, 65]]


def test_ctrl_c_while_the_files_are_described_loses_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(sentence):
        calls.append(sentence)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return np.zeros(384)

    monkeypatch.setattr(describe_module, "hashed_embedding", interrupted)
    writer = CalvinWriter(tmp_path)
    add(writer, 3)
    writer.annotate(64, 66, "open_drawer", "open")
    with pytest.raises(KeyboardInterrupt), writer:
        pass
    assert len(CalvinDataset(tmp_path).spans) == 1
    assert CalvinDataset(tmp_path).complete


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_without_frames_leaves_nothing(tmp_path, error):
    with pytest.raises(error), CalvinWriter(tmp_path / "data"):
        raise error
    assert list((tmp_path / "data").iterdir()) == []


def test_no_frame_is_an_error_and_leaves_nothing(tmp_path):
    message = f"No frame was added for {tmp_path / 'training'}: there is nothing to write."
    with pytest.raises(ValueError, match=re.escape(message)), CalvinWriter(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_existing_data_are_never_overwritten(calvin_root):
    message = (
        f"{calvin_root / 'training'} exists, and CALVIN data are never overwritten: choose another "
        "folder or remove it."
    )
    with pytest.raises(FileExistsError, match=re.escape(message)):
        CalvinWriter(calvin_root)


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path):
    writer = CalvinWriter(tmp_path)
    add(writer)
    (tmp_path / "training").mkdir()
    with pytest.raises(
        FileExistsError, match="was made by another process meanwhile; the CALVIN data "
    ):
        writer.close()
    assert list((tmp_path / "training").iterdir()) == []
    (kept,) = tmp_path.glob("training-*")
    assert safe_load_npy(kept / "ep_start_end_ids.npy").tolist() == [[64, 64]]


def test_an_unwritable_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = tmp_path / "file" / "training"
    message = (
        f"Cannot write CALVIN data to {folder}: {os.strerror(20)}. Choose a folder that you may "
        "write to."
    )
    with pytest.raises(OSError, match=re.escape(message)):
        CalvinWriter(tmp_path / "file")


def test_frames_of_a_scene_follow_one_another(tmp_path):
    writer = CalvinWriter(tmp_path, scene="A")
    add(writer)
    writer.set_scene("A")
    writer.set_scene("B")
    add(writer)
    message = (
        "Scene 'A' was left before, and the frames of a scene follow one another: record all its "
        "episodes before the next scene."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        writer.set_scene("A")


GRIPPER = "the gripper (index 6) is 0.5, expected exactly 1.0 (open) or -1.0 (close)"
FRAMES = {
    "another action shape": (
        {"rel_action": np.zeros(6)},
        ["key 'rel_actions': shape (6,), expected (7,)"],
    ),
    "NaN in an action": (
        {"rel_action": [0, np.nan, 0, 0, 0, 0, 1]},
        ["key 'rel_actions': index 1 is nan, expected a finite number"],
    ),
    "gripper of 0.5": (
        {"rel_action": [0, 0, 0, 0, 0, 0, 0.5], "action": [0, 0, 0, 0, 0, 0, 0.5]},
        [f"key 'actions': {GRIPPER}", f"key 'rel_actions': {GRIPPER}"],
    ),
    "an action too far": (
        {"rel_action": [0, 0, -1.5, 0, 0, 0, 1.0]},
        ["key 'rel_actions': index 2 is -1.5, expected -1 to 1"],
    ),
    "integers": (
        {"action": [0, 0, 0, 0, 0, 0, 1]},
        ["key 'actions': dtype int64, expected a floating-point dtype"],
    ),
    "another robot": (
        {"robot_obs": np.zeros((1, 15))},
        ["key 'robot_obs': shape (1, 15), expected (15,)"],
    ),
    "infinite scene": (
        {"scene_obs": [np.inf] * 24},
        ["key 'scene_obs': index 0 is inf, expected a finite number"],
    ),
    "float picture": (
        {"rgb_static": PICTURE / 255},
        ["key 'rgb_static': dtype float64, expected uint8"],
    ),
    "depth with channels": (
        {"depth_gripper": DEPTH[None]},
        ["key 'depth_gripper': shape (1, 4, 6), expected [height, width]"],
    ),
    "pictures that the others lack": (
        {"rgb_gripper": PICTURE},
        [
            "images rgb_gripper of shape (4, 6, 3), the frames before have none: all frames of a "
            "split have the same cameras and sizes"
        ],
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_broken_frame_is_refused_at_once(tmp_path, name):
    change, problems = FRAMES[name]
    sound = {"robot_obs": ROBOT, "scene_obs": SCENE, "rel_action": ACTION, "action": ACTION}
    writer = CalvinWriter(tmp_path)
    add(writer)
    lines = "".join(f"\n  - {problem}" for problem in problems)
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    message = f"Frame 65 for {tmp_path / 'training'}: {count} found:{lines}"
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        writer.add_frame(**{**sound, **change})
    assert add(writer) == [65]


def test_one_action_alone_is_refused(tmp_path):
    message = (
        "rel_action and action belong together: give both, or neither where nothing was done after "
        "the frame."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        CalvinWriter(tmp_path).add_frame(ROBOT, SCENE, ACTION)


def test_a_picture_with_channels_last_is_refused(tmp_path):
    message = "rgb_static has shape (4, 6, 3), expected [3, height, width]."
    with pytest.raises(ValueError, match=re.escape(message)):
        add(CalvinWriter(tmp_path), rgb_static=np.moveaxis(PICTURE, 0, -1))


SPANS = {
    "unknown task": ((64, 66, "open_door", "open"), "unknown task 'open_door'"),
    "empty sentence": ((64, 66, "open_drawer", " "), "the instruction is empty"),
    "one frame": (
        (64, 65, "open_drawer", "open"),
        "start 64, end 65 (exclusive): expected 2 frames or more",
    ),
    "a frame that is not there yet": (
        (67, 70, "open_drawer", "open"),
        "start 67, end 70 (exclusive) are out of range: no episode has these frames; episode 1 has "
        "67 to 68",
    ),
    "two episodes": (
        (65, 68, "open_drawer", "open"),
        "start 65, end 68 (exclusive) are out of range: no episode has these frames; episode 0 has "
        "64 to 66",
    ),
    "before the first frame": (
        (0, 10, "open_drawer", "open"),
        "start 0, end 10 (exclusive) are out of range: no episode has these frames",
    ),
}


@pytest.mark.parametrize("name", SPANS)
def test_a_broken_annotation_is_refused_at_once(tmp_path, name):
    arguments, problem = SPANS[name]
    writer = CalvinWriter(tmp_path)
    add(writer, 3)
    writer.end_episode()
    add(writer, 2)
    folder = tmp_path / "training"
    message = f"Annotation for {folder}: 1 problem found:\n  - annotation 0: {problem}"
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        writer.annotate(*arguments)
    assert writer.spans == []
