import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from tensordict import MemoryMappedTensor, TensorDict

from rftf_torchrl import DemonstrationError, Demonstrations, load_demonstrations
from rftf_torchrl.data.format import EPISODE, Episode


def edit_json(root, change):
    file = root / "demonstrations.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def edit_frames(root, change):
    frames = TensorDict.load_memmap(root / "frames").clone().contiguous()
    change(frames)
    shutil.rmtree(root / "frames")
    frames.memmap(root / "frames")


def problems(root, **kwargs):
    with pytest.raises(DemonstrationError) as caught:
        load_demonstrations(root, **kwargs)
    found = caught.value.problems
    count = f"{len(found)} problem{'s' * (len(found) > 1)}"
    lines = "".join(f"\n  - {line}" for line in found)
    assert str(caught.value) == f"Demonstrations in {root}: {count} found:{lines}"
    return list(found)


def set_episode(position, **fields):
    return lambda content: content["episodes"][position].update(fields)


BROKEN_INDEX = {
    "format version": (
        lambda content: content.update(format_version=2),
        ["demonstrations.json: format_version is 2, this library reads 1"],
    ),
    "missing field": (
        lambda content: content.pop("action_dim"),
        ["demonstrations.json: action_dim is not set"],
    ),
    "image size": (
        lambda content: content.update(image_size=[8]),
        ["demonstrations.json: image_size.1 is not set"],
    ),
    "image size as a number": (
        lambda content: content.update(image_size=8),
        ["demonstrations.json: image_size=8: must be a list"],
    ),
    "no image size, but images": (
        lambda content: content.update(image_size=None),
        [
            "frames: key ('observation', 'image'): there, but demonstrations.json says "
            "'image_size' null"
        ],
    ),
    "success as a number": (
        set_episode(1, success=1),
        ["demonstrations.json: episodes.1.success=1: must be true or false"],
    ),
    "episode that is no record": (
        lambda content: content["episodes"].append(3),
        ["demonstrations.json: episodes.6=3: must be a record"],
    ),
    "no episodes": (
        lambda content: content.update(episodes=[]),
        ["demonstrations.json: the list of episodes is empty"],
    ),
    "empty instruction": (
        lambda content: content["tasks"][1].update(instruction="  "),
        ["demonstrations.json: task 1 ('task-1'): the instruction is empty"],
    ),
    "short episode": (
        set_episode(5, start=37),
        ["demonstrations.json: episode 5: frames 37 to 38 are fewer than 2 frames"],
    ),
    "out of range": (
        set_episode(5, stop=39),
        ["demonstrations.json: episode 5: frames 32 to 39 are outside of 0 to 38"],
    ),
    "unknown task": (
        set_episode(0, task_id=5),
        [
            "demonstrations.json: episode 0: unknown task_id 5, the tasks are [0, 1]",
            "frames: episode 0: key 'task_id': is not 5 at frames 0, 1, 2, 3, 4 and 1 more",
        ],
    ),
    "overlap": (
        set_episode(1, start=4),
        [
            "demonstrations.json: episode 1: starts at frame 4, but episode 0 ends at 6: they "
            "overlap",
            "frames: episode 1: key 'episode': is not 1 at frames 0, 1",
            "frames: episode 1: key 'action_is_pad': must be True at the last frame only, differs "
            "at frame 1",
        ],
    ),
    "index twice": (
        set_episode(1, index=0),
        [
            "demonstrations.json: episode 0: the index is used twice",
            "frames: episode 0: key 'episode': is not 0 at frames 0, 1, 2, 3, 4 and 2 more",
        ],
    ),
}


@pytest.mark.parametrize("name", BROKEN_INDEX)
def test_broken_index(root, name):
    change, expected = BROKEN_INDEX[name]
    edit_json(root, change)
    assert problems(root) == expected


def drop_state(frames):
    del frames["observation", "state"]
    (frames["observation"]).set("extra", torch.zeros(len(frames), 1))


def drop_image(frames):
    del frames["observation", "image"]


BROKEN_FRAMES = {
    "image size, but no images": (
        drop_image,
        ["frames: key ('observation', 'image'): missing"],
    ),
    "missing key": (drop_state, ["frames: key ('observation', 'state'): missing"]),
    "dtype": (
        lambda frames: frames.set("action", frames["action"].double()),
        ["frames: key 'action': dtype torch.float64, expected torch.float32"],
    ),
    "shape": (
        lambda frames: frames.set("action", frames["action"][:, :1]),
        ["frames: key 'action': shape (1,) per frame, expected (2)"],
    ),
    "NaN": (
        lambda frames: frames["observation", "state"][8].fill_(float("nan")),
        ["frames: episode 1: key ('observation', 'state'): not finite at frame 2"],
    ),
    "empty instruction": (
        lambda frames: frames["instruction", "mask"][32:].fill_(False),
        [
            "frames: episode 5: key ('instruction', 'mask'): the instruction is empty at frames 0, "
            "1, 2, 3, 4 and 1 more"
        ],
    ),
}


@pytest.mark.parametrize("name", BROKEN_FRAMES)
def test_broken_frames(root, name):
    change, expected = BROKEN_FRAMES[name]
    edit_frames(root, change)
    assert problems(root) == expected
    assert load_demonstrations(root, validate=False).num_frames == 38


def test_all_violations_are_told_at_once(root):
    edit_json(root, set_episode(0, task_id=5))
    edit_frames(root, lambda frames: frames["action"][7].fill_(float("inf")))
    assert problems(root) == [
        "demonstrations.json: episode 0: unknown task_id 5, the tasks are [0, 1]",
        "frames: episode 0: key 'task_id': is not 5 at frames 0, 1, 2, 3, 4 and 1 more",
        "frames: episode 1: key 'action': not finite at frame 1",
    ]


def test_truncated_file_is_found_before_it_reads_as_zeros(root):
    file = root / "frames" / "observation" / "state.memmap"
    os.truncate(file, 100)
    (root / "frames" / "action.memmap").unlink()
    edit_json(root, set_episode(5, start=37))
    expected = [
        "demonstrations.json: episode 5: frames 37 to 38 are fewer than 2 frames",
        "observation/state.memmap: 100 bytes, expected 456",
        "frames/action.memmap: missing",
    ]
    assert sorted(problems(root)) == sorted(
        line.replace("observation/", "frames/observation/") for line in expected
    )
    assert len(problems(root, validate=False)) == 3
    assert file.stat().st_size == 100


def test_read_only_file(root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file).name != "action.memmap")
    assert problems(root) == [
        "frames/action.memmap: read-only, but TensorDict maps files for reading and writing: "
        "change its permissions or copy the folder"
    ]


def test_unreadable_json(root):
    (root / "demonstrations.json").write_text("{", encoding="utf-8")
    (line,) = problems(root)
    assert line.startswith("demonstrations.json: unreadable JSON (")


def test_missing_frames(root):
    (root / "frames" / "meta.json").unlink()
    assert problems(root) == ["frames/meta.json: missing"]


def test_missing_folder(tmp_path):
    message = f"No demonstrations in {tmp_path / 'no'}: demonstrations.json is missing."
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load_demonstrations(tmp_path / "no")


def test_frame_count_differs_from_the_index(root):
    edit_json(root, lambda content: content.update(num_frames=40))
    assert problems(root) == ["frames: 38 frames, demonstrations.json says 40"]


def test_frames_stay_on_disk(demonstrations):
    leaves = list(demonstrations.frames.values(True, True))
    assert len(leaves) == 8
    assert all(isinstance(leaf, MemoryMappedTensor) for leaf in leaves)
    assert demonstrations.frames.is_locked


def test_select(demonstrations):
    assert [e.index for e in demonstrations.select(tasks=["task-1"]).episodes] == [3, 4, 5]
    assert [e.index for e in demonstrations.select(tasks=[0]).episodes] == [0, 1, 2]
    places = demonstrations.select(tasks=["task-1"]).places
    assert torch.equal(demonstrations.frames[EPISODE][places].unique(), torch.tensor([3, 4, 5]))
    assert len(places) == demonstrations.select(tasks=["task-1"]).num_frames
    selected = demonstrations.select(tasks=[0], episodes=[1, 4])
    assert [e.index for e in selected.episodes] == [1]
    assert selected.num_frames == 7
    assert selected.spans.tolist() == [[6, 13]]
    assert selected.frames is demonstrations.frames


def test_select_by_outcome_and_split(root):
    edit_json(root, set_episode(2, success=False, split="test"))
    demonstrations = load_demonstrations(root)
    assert [e.index for e in demonstrations.select(success=False).episodes] == [2]
    assert [e.index for e in demonstrations.select(split="test").episodes] == [2]
    assert len(demonstrations.select(success=True).episodes) == 5


def test_select_refuses_what_is_not_there(demonstrations):
    root = demonstrations.root
    with pytest.raises(KeyError) as caught:
        demonstrations.select(tasks=["task-9"])
    assert caught.value.args == (f"No task 'task-9' in {root}; it has 0 ('task-0'), 1 ('task-1').",)
    with pytest.raises(KeyError) as caught:
        demonstrations.select(episodes=[1, 8, 9])
    assert caught.value.args == (f"No episodes [8, 9] among the 6 selected episodes of {root}.",)
    message = (
        f"No episode of {root} has tasks=[0], episodes=[4], success=None, split=None: loosen one "
        "of them."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        demonstrations.select(tasks=[0], episodes=[4])


def episodes_of(*counts):
    """Demonstrations without frames: so many episodes of each task."""
    flat = [task for task, count in enumerate(counts) for _ in range(count)]
    episodes = tuple(Episode(i, task, 2 * i, 2 * i + 2, True) for i, task in enumerate(flat))
    return Demonstrations("demos", TensorDict({}, [2 * len(flat)]), episodes, (), "test", 1, True)


def test_split_holds_out_the_same_fraction_of_every_task():
    demonstrations = episodes_of(20, 10, 2, 1)
    train, held_out = demonstrations.split(0.2, generator=0)
    tasks = torch.tensor([e.task_id for e in held_out.episodes])
    assert tasks.bincount(minlength=4).tolist() == [4, 2, 1, 0]
    indices = [e.index for part in (train, held_out) for e in part.episodes]
    assert sorted(indices) == list(range(33))


def test_split_follows_its_seed():
    demonstrations = episodes_of(20, 20)
    same = [demonstrations.split(0.5, generator=seed)[1].episodes for seed in (0, 0, 1)]
    assert same[0] == same[1]
    assert same[0] != same[2]
    generator = torch.Generator().manual_seed(0)
    assert demonstrations.split(0.5, generator)[1].episodes == same[0]


@pytest.mark.parametrize("fraction", [0, 1, -0.5])
def test_split_refuses_other_fractions(fraction):
    message = f"held_out_fraction is {fraction}, expected a number between 0 and 1, exclusive."
    with pytest.raises(ValueError, match=re.escape(message)):
        episodes_of(4).split(fraction, generator=0)


def test_split_refuses_single_episodes():
    message = "No task of demos has two episodes, so none can be held out: record more."
    with pytest.raises(ValueError, match=re.escape(message)):
        episodes_of(1, 1).split(0.5, generator=0)
