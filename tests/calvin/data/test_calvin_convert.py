import re

import numpy as np
import pytest
import torch
from synthetic_calvin import write_synthetic_calvin

from rftf_torchrl import (
    CalvinDataset,
    CalvinWriter,
    DemonstrationError,
    action_windows,
    initial_scene,
    initial_states,
    load_demonstrations,
    to_demonstrations,
    training_scene,
)
from rftf_torchrl.calvin.data import convert as convert_module


def test_spans_become_episodes(pristine, tmp_path):
    out = to_demonstrations(pristine, tmp_path / "out", image_size=10, wrist_size=6)
    demos = load_demonstrations(out)
    dataset = CalvinDataset(pristine, image_size=10, wrist_size=6)
    assert (demos.simulator, demos.complete, demos.action_repeat) == ("calvin", True, 1)
    assert [(e.task_id, len(e), e.success, e.split) for e in demos.episodes] == [
        (14, 18, True, "train"),
        (31, 18, True, "train"),
    ] * 2
    for episode, span in zip(demos.episodes, dataset.spans, strict=True):
        there, frames = dataset.read_span(span), demos.frames[episode.start : episode.stop]
        assert torch.equal(frames["action"][:-1], there["action"][:-1])
        assert not frames["action"][-1].any()
        for key in ("image", "wrist_image", "state"):
            assert torch.equal(frames["observation", key], there["observation", key])
        for key in ("tokens", "mask"):
            assert torch.equal(frames["instruction", key], there["instruction", key])
    windows = action_windows(demos, chunk_size=8)
    batch = windows.batch(torch.arange(4))
    assert batch["observation", "wrist_image"].shape == (4, 3, 6, 6)


def test_data_without_pictures(tmp_path):
    root = write_synthetic_calvin(tmp_path / "data", "validation", image_size=None, scene="C")
    out = to_demonstrations(root, tmp_path / "out", split="validation")
    demos = load_demonstrations(out)
    assert sorted(demos.frames["observation"].keys()) == ["state"]
    expected = CalvinDataset(root, "validation").read_frames(64, 100)["observation", "state"]
    assert torch.equal(demos.frames["observation", "state"], expected)
    assert {episode.split for episode in demos.episodes} == {"test"}


def test_tasks_and_limit_choose_spans(pristine, tmp_path):
    out = to_demonstrations(pristine, tmp_path / "a", tasks=["turn_on_led"], limit=1)
    demos = load_demonstrations(out)
    assert [task.name for task in demos.tasks] == ["turn_on_led"]
    assert len(demos.episodes) == 1
    limited = load_demonstrations(to_demonstrations(pristine, tmp_path / "b", limit=1))
    assert [episode.task_id for episode in limited.episodes] == [14, 31]


def test_an_interruption_keeps_what_was_read(pristine, tmp_path, monkeypatch):
    original = convert_module._episode

    def interrupted(dataset, span):
        if span.index == 2:
            raise KeyboardInterrupt
        return original(dataset, span)

    monkeypatch.setattr(convert_module, "_episode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        to_demonstrations(pristine, tmp_path / "out")
    demos = load_demonstrations(tmp_path / "out")
    assert (len(demos.episodes), demos.complete) == (2, False)
    with pytest.raises(FileExistsError, match="demonstrations are never overwritten"):
        to_demonstrations(pristine, tmp_path / "out")


def test_wrong_arguments_are_refused(pristine, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"^limit is 0, expected 1 or more, or None\.$"):
        to_demonstrations(pristine, out, limit=0)
    with pytest.raises(ValueError, match="unknown CALVIN task 'open_door'"):
        to_demonstrations(pristine, out, tasks=["open_door"])
    message = (
        f"No span of lang_annotations/auto_lang_ann.npy in training of {pristine} has "
        "tasks=['stack_block']: there is nothing to write."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_demonstrations(pristine, out, tasks=["stack_block"])
    assert not out.exists()


def test_both_splits_go_to_one_folder(tmp_path):
    root = write_synthetic_calvin(tmp_path / "data", "training", seed=0)
    write_synthetic_calvin(tmp_path / "data", "validation", seed=1)
    out = to_demonstrations(root, tmp_path / "out", split=("training", "validation"))
    demonstrations = load_demonstrations(out)
    train, held_out = demonstrations.select(split="train"), demonstrations.select(split="test")
    assert len(train.episodes) + len(held_out.episodes) == len(demonstrations.episodes)
    assert len(held_out.episodes) == len(CalvinDataset(root, "validation").spans)


def test_half_a_recording_makes_half_the_demonstrations(calvin_root, tmp_path):
    (calvin_root / "training" / "interrupted.txt").touch()
    demos = load_demonstrations(to_demonstrations(calvin_root, tmp_path / "demos"))
    assert (len(demos.episodes), demos.complete) == (4, False)


@pytest.fixture
def begins_in_a_test_scene(tmp_path):
    """A dataset of which one span of two begins where the benchmark does, as read back."""
    root = tmp_path / "data"
    robot, action = np.zeros(15), np.array([0, 0, 0, 0, 0, 0, 1.0])
    state = initial_states()[20]
    with CalvinWriter(root, scene="D") as writer:
        for scene_obs in (training_scene(state, 0)[1], initial_scene(state)[1] + 3e-4):
            frames = [writer.add_frame(robot, scene_obs, action, action) for _ in range(3)]
            writer.annotate(frames[0], frames[-1] + 1, "open_drawer", "open the drawer")
            writer.end_episode()
    return root


def test_spans_that_begin_in_a_scene_of_the_benchmark(begins_in_a_test_scene, tmp_path, caplog):
    root = begins_in_a_test_scene
    with caplog.at_level("WARNING"):
        demos = load_demonstrations(to_demonstrations(root, tmp_path / "all"))
    assert (len(demos.episodes), demos.complete) == (2, True)
    assert caplog.messages == [
        "1 of 2 spans begin in an initial scene of CALVIN's benchmark: a policy that learns from "
        "them has seen what it is tested on"
    ]
    message = (
        f"CALVIN data in {root / 'training'}, annotation 1: 1 problem found:\n"
        "  - frame 67 is the benchmark's initial scene 20: it must not be used"
    )
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        to_demonstrations(root, tmp_path / "refused", test_states="refuse")
    with pytest.raises(ValueError, match=r"^test_states is 'no', expected 'warn' or 'refuse'\.$"):
        to_demonstrations(root, tmp_path / "no", test_states="no")


def test_other_scenes_are_not_the_benchmarks(begins_in_a_test_scene, tmp_path, caplog):
    to_demonstrations(begins_in_a_test_scene, tmp_path / "out", scene="A", test_states="refuse")
    assert caplog.messages == []
