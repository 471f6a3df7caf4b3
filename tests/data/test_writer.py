import json
import os
import re

import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import DemonstrationError, DemonstrationWriter, load_demonstrations
from rftf_torchrl.data import writer as writer_module


def write(root, tasks, *episodes, task_id=0):
    with DemonstrationWriter(root, tasks=tasks, simulator="test") as writer:
        for frames in episodes:
            writer.add_episode(frames, task_id=task_id, success=True)


def test_everything_that_is_written_reads_back(tmp_path, tasks, episode):
    first, second = episode(5, seed=1), episode(3, seed=2)
    root = tmp_path / "new" / "demos"
    with DemonstrationWriter(root, tasks=tasks, simulator="sim", action_repeat=4) as writer:
        writer.add_episode(first, task_id=7, success=True, goal_seed=11, split="a")
        writer.add_episode(second, task_id=0, success=False)

    frames = TensorDict.load_memmap(root / "frames")
    recorded = torch.cat([first, second])
    for key in recorded.keys(True, True):
        assert frames[key].dtype == recorded[key].dtype
        assert torch.equal(frames[key], recorded[key]), key
    assert frames["task_id"].flatten().tolist() == [7] * 5 + [0] * 3
    assert frames["episode"].flatten().tolist() == [0] * 5 + [1] * 3
    assert frames["action_is_pad"].flatten().nonzero().flatten().tolist() == [4, 7]
    assert json.loads((root / "demonstrations.json").read_text(encoding="utf-8")) == {
        "format_version": 1,
        "complete": True,
        "simulator": "sim",
        "image_size": [8, 6],
        "state_dim": 3,
        "action_dim": 2,
        "action_repeat": 4,
        "num_frames": 8,
        "simulator_steps": 0,
        "tasks": tasks,
        "episodes": [
            {
                "index": 0,
                "task_id": 7,
                "start": 0,
                "stop": 5,
                "success": True,
                "goal_seed": 11,
                "split": "a",
            },
            {
                "index": 1,
                "task_id": 0,
                "start": 5,
                "stop": 8,
                "success": False,
                "goal_seed": None,
                "split": "train",
            },
        ],
    }
    assert [path.name for path in root.parent.iterdir()] == ["demos"]
    loaded = load_demonstrations(root)
    assert (loaded.simulator, loaded.action_repeat, loaded.complete) == ("sim", 4, True)


def test_entries_that_the_format_does_not_know_are_left_out(tmp_path, tasks, episode):
    frames = episode()
    frames["reward"] = torch.zeros(5, 1)
    write(tmp_path / "demos", tasks, frames)
    assert "reward" not in TensorDict.load_memmap(tmp_path / "demos" / "frames")
    assert "reward" in frames
    assert "episode" not in frames


def test_nothing_has_the_final_name_before_close(tmp_path, tasks, episode):
    root = tmp_path / "demos"
    writer = DemonstrationWriter(root, tasks=tasks, simulator="test")
    writer.add_episode(episode(), task_id=0, success=True)
    assert not root.exists()
    writer.close()
    assert root.is_dir()
    writer.close()
    with pytest.raises(
        RuntimeError,
        match=re.escape(f"The writer of {root} is closed: no episode can be added."),
    ):
        writer.add_episode(episode(), task_id=0, success=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_collection_keeps_its_whole_episodes(tmp_path, tasks, episode, error):
    root = tmp_path / "demos"

    def collect():
        with DemonstrationWriter(root, tasks=tasks, simulator="test") as writer:
            writer.add_episode(episode(5), task_id=0, success=True)
            raise error

    with pytest.raises(error):
        collect()
    loaded = load_demonstrations(root)
    assert (len(loaded.episodes), loaded.complete) == (1, False)
    assert [path.name for path in tmp_path.iterdir()] == ["demos"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_collection_without_episodes_leaves_nothing(tmp_path, tasks, error):
    with (
        pytest.raises(error),
        DemonstrationWriter(tmp_path / "demos", tasks=tasks, simulator="test"),
    ):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_episodes_are_joined_loses_none(tmp_path, tasks, episode, monkeypatch):
    calls = []

    def write_index(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return original(*args)

    original = writer_module.write_index
    monkeypatch.setattr(writer_module, "write_index", write_index)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "demos", tasks, episode(5), episode(4))
    loaded = load_demonstrations(tmp_path / "demos")
    assert (len(loaded.episodes), loaded.complete) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["demos"]


def test_no_episode_is_an_error_and_leaves_nothing(tmp_path, tasks):
    root = tmp_path / "demos"
    message = f"No episode was added for {root}: there is nothing to write."
    with pytest.raises(ValueError, match=re.escape(message)):
        write(root, tasks)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_never_overwritten(root, tasks):
    message = (
        f"{root} exists, and demonstrations are never overwritten: choose another folder or "
        "remove it."
    )
    with pytest.raises(FileExistsError, match=re.escape(message)):
        DemonstrationWriter(root, tasks=tasks, simulator="test")


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path, tasks, episode):
    root = tmp_path / "demos"
    writer = DemonstrationWriter(root, tasks=tasks, simulator="test")
    writer.add_episode(episode(), task_id=0, success=True)
    root.mkdir()
    with pytest.raises(FileExistsError, match="was made by another process meanwhile"):
        writer.close()
    assert list(root.iterdir()) == []
    (kept,) = tmp_path.glob("demos-*")
    assert len(load_demonstrations(kept).episodes) == 1
    assert sorted(tmp_path.iterdir()) == [root, kept]


def test_unwritable_folder_is_one_clear_error(tmp_path, tasks):
    (tmp_path / "file").write_text("", encoding="utf-8")
    root = tmp_path / "file" / "demos"
    message = (
        f"Cannot write demonstrations to {root}: {os.strerror(20)}. Choose a folder that you may "
        "write to."
    )
    with pytest.raises(OSError, match=re.escape(message)):
        DemonstrationWriter(root, tasks=tasks, simulator="test")


def without(key):
    def change(frames):
        del frames[key]

    return change


def replaced(key, new):
    def change(frames):
        frames[key] = new(frames[key])

    return change


def poisoned(key, index, value):
    def change(frames):
        frames[key][index] = value

    return change


BROKEN = {
    "missing state": (
        without(("observation", "state")),
        ["key ('observation', 'state'): missing"],
    ),
    "float image": (
        replaced(("observation", "image"), torch.Tensor.float),
        ["key ('observation', 'image'): dtype torch.float32, expected torch.uint8"],
    ),
    "image with channels last": (
        replaced(("observation", "image"), lambda image: image.movedim(1, -1)),
        ["key ('observation', 'image'): shape (8, 6, 3) per frame, expected (3, h, w)"],
    ),
    "mask of another length": (
        replaced(("instruction", "mask"), lambda mask: mask[:, :2]),
        ["key ('instruction', 'mask'): shape (2,) per frame, expected (4)"],
    ),
    "pictures in 0..1": (
        replaced(("observation", "image"), lambda image: image // 128),
        [
            "key ('observation', 'image'): the largest number is 1, as of images in 0..1 that "
            "were cut to whole numbers; scale them to 0..255 before"
        ],
    ),
    "actions in other units": (
        poisoned("action", slice(1, 3), -90.0),
        [
            "key 'action': beyond -1 to 1 at frames 1, 2, up to 90; every simulator takes actions "
            "in -1 to 1, so record them in these units"
        ],
    ),
    "NaN state": (
        poisoned(("observation", "state"), 2, float("nan")),
        ["key ('observation', 'state'): not finite at frame 2"],
    ),
    "infinite actions": (
        poisoned("action", slice(0, 2), float("inf")),
        ["key 'action': not finite at frames 0, 1"],
    ),
    "no real token": (
        poisoned(("instruction", "mask"), 3, False),
        ["key ('instruction', 'mask'): the instruction is empty at frame 3"],
    ),
    "action at the last frame": (
        poisoned("action", -1, 1.0),
        [
            "key 'action': the last frame's action is not zero; an episode ends with the "
            "observation after its last action, so record that frame with a zero action"
        ],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_episode_is_refused_at_once(tmp_path, tasks, episode, name):
    change, problems = BROKEN[name]
    frames = episode(5)
    change(frames)
    with DemonstrationWriter(tmp_path / "demos", tasks=tasks, simulator="test") as writer:
        with pytest.raises(DemonstrationError) as caught:
            writer.add_episode(frames, task_id=0, success=True)
        writer.add_episode(episode(5), task_id=0, success=True)
    lines = "".join(f"\n  - {problem}" for problem in problems)
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    assert str(caught.value) == f"Episode 0 for {tmp_path / 'demos'}: {count} found:{lines}"
    assert len(load_demonstrations(tmp_path / "demos").episodes) == 1


def test_all_violations_of_an_episode_are_told_at_once(tmp_path, tasks, episode):
    frames = episode(1)
    del frames["action"]
    frames["observation", "state"] = frames["observation", "state"].double()
    writer = DemonstrationWriter(tmp_path / "demos", tasks=tasks, simulator="test")
    with pytest.raises(DemonstrationError) as caught:
        writer.add_episode(frames, task_id=3, success=True)
    assert caught.value.problems == (
        "unknown task_id 3, the tasks are [0, 7]",
        "1 frames, expected 2 or more: order needs two",
        "key ('observation', 'state'): dtype torch.float64, expected torch.float32",
        "key 'action': missing",
    )


def test_episodes_have_the_sizes_of_the_first_one(tmp_path, tasks, episode):
    with DemonstrationWriter(tmp_path / "demos", tasks=tasks, simulator="test") as writer:
        writer.add_episode(episode(5), task_id=0, success=True)
        with pytest.raises(DemonstrationError) as caught:
            writer.add_episode(episode(5, action_dim=3, size=(8, 8)), task_id=0, success=True)
    assert caught.value.problems == (
        "key ('observation', 'image'): shape (3, 8, 8) per frame, expected (3, 8, 6)",
        "key 'action': shape (3,) per frame, expected (2)",
    )


def test_state_only_episodes_read_back(tmp_path, tasks, episode):
    recorded = [episode(5, seed=1), episode(3, seed=2)]
    for frames in recorded:
        del frames["observation", "image"]
    root = tmp_path / "demos"
    write(root, tasks, *recorded)
    assert (
        json.loads((root / "demonstrations.json").read_text(encoding="utf-8"))["image_size"] is None
    )
    frames = load_demonstrations(root).frames
    assert set(frames["observation"].keys()) == {"state"}
    whole = torch.cat(recorded)
    for key in whole.keys(True, True):
        assert torch.equal(frames[key], whole[key]), key


MIXED = {
    "image after none": (False, "there, but not in"),
    "none after image": (True, "missing, but there in"),
}


@pytest.mark.parametrize("name", MIXED)
def test_episodes_with_and_without_images_do_not_mix(tmp_path, tasks, episode, name):
    image_first, found = MIXED[name]
    first, second = episode(5), episode(4)
    del (second if image_first else first)["observation", "image"]
    root = tmp_path / "demos"
    with DemonstrationWriter(root, tasks=tasks, simulator="test") as writer:
        writer.add_episode(first, task_id=0, success=True)
        with pytest.raises(DemonstrationError) as caught:
            writer.add_episode(second, task_id=0, success=True)
        writer.add_episode(first, task_id=0, success=True)
    assert str(caught.value) == (
        f"Episode 1 for {root}: 1 problem found:\n"
        f"  - key ('observation', 'image'): {found} the episodes before; record all episodes of a "
        "folder with images or all without"
    )
    assert [len(e) for e in load_demonstrations(root).episodes] == [5, 5]


def test_batched_episode_is_refused(tmp_path, tasks, episode):
    writer = DemonstrationWriter(tmp_path / "demos", tasks=tasks, simulator="test")
    with pytest.raises(DemonstrationError) as caught:
        writer.add_episode(episode(4).reshape(2, 2), task_id=0, success=True)
    assert caught.value.problems == ("batch size (2, 2), expected one dimension, [T]",)


def test_tasks_are_checked_at_once(tmp_path):
    tasks = [
        {"id": 0, "name": "a", "instruction": ""},
        {"id": 0, "name": "b", "instruction": "do b"},
    ]
    with pytest.raises(DemonstrationError) as caught:
        DemonstrationWriter(tmp_path / "demos", tasks=tasks, simulator="test")
    assert caught.value.problems == (
        "task 0 ('a'): the instruction is empty",
        "task 0 ('b'): the id is used twice",
    )
    with pytest.raises(DemonstrationError) as caught:
        DemonstrationWriter(tmp_path / "demos", tasks=[{"id": "1", "name": "c"}], simulator="test")
    assert caught.value.problems == (
        "tasks.0.id='1': must be a whole number",
        "tasks.0.instruction is not set",
    )
    with pytest.raises(DemonstrationError, match="the list of tasks is empty"):
        DemonstrationWriter(tmp_path / "demos", tasks=[], simulator="test")


def with_wrist(frames, size=(4, 6)):
    frames["observation", "wrist_image"] = torch.full((len(frames), 3, *size), 7).to(torch.uint8)
    return frames


def test_a_wrist_image_is_optional(tmp_path, tasks, episode):
    root = tmp_path / "demos"
    write(root, tasks, with_wrist(episode(5)), with_wrist(episode(3)))
    index = json.loads((root / "demonstrations.json").read_text(encoding="utf-8"))
    assert (index["image_size"], index["wrist_image_size"]) == ([8, 6], [4, 6])
    frames = load_demonstrations(root).frames
    assert frames["observation", "wrist_image"].shape == (8, 3, 4, 6)
    assert (frames["observation", "wrist_image"] == 7).all()


def test_a_wrist_image_without_the_other_is_fine(tmp_path, tasks, episode):
    frames = with_wrist(episode(5))
    del frames["observation", "image"]
    write(tmp_path / "demos", tasks, frames)
    assert load_demonstrations(tmp_path / "demos").frames["observation", "wrist_image"].any()


def test_a_wrist_image_is_there_in_all_episodes_or_in_none(tmp_path, tasks, episode):
    message = (
        "key ('observation', 'wrist_image'): missing, but there in the episodes before; record all "
        "episodes of a folder with images or all without"
    )
    with pytest.raises(DemonstrationError, match=re.escape(message)):
        write(tmp_path / "demos", tasks, with_wrist(episode(5)), episode(3))
    index = tmp_path / "demos" / "demonstrations.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    del content["wrist_image_size"]
    index.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "demos" / "digests.json").unlink()
    message = (
        "frames: key ('observation', 'wrist_image'): there, but demonstrations.json says "
        "'wrist_image_size' null"
    )
    with pytest.raises(DemonstrationError, match=re.escape(message)):
        load_demonstrations(tmp_path / "demos")
    index.write_text(json.dumps({**content, "wrist_image_size": [4, "6"]}), encoding="utf-8")
    message = "wrist_image_size.1='6': must be a whole number"
    with pytest.raises(DemonstrationError, match=re.escape(message)):
        load_demonstrations(tmp_path / "demos")
