"""A recording that stopped early goes on from its last mark, as if it had not stopped."""

import re

import numpy as np
import pytest

from rftf_torchrl import CalvinDataset, CalvinWriter, DemonstrationError
from rftf_torchrl.digests import digest_problems

UNITS = [("D", "open_drawer"), ("D", "turn_on_led"), ("A", "open_drawer")]


def record(writer, number):
    """Two episodes, one of them annotated, with numbers and images of their own."""
    scene, task = UNITS[number]
    writer.set_scene(scene)
    rng = np.random.default_rng(number)
    for _ in range(2):
        for _ in range(3):
            robot, things, action = rng.uniform(-1, 1, 15), rng.uniform(-1, 1, 24), np.ones(7)
            picture = rng.integers(0, 255, (3, 4, 6), dtype=np.uint8)
            last = writer.add_frame(robot, things, action, action, rgb_static=picture)
        writer.end_episode()
    writer.annotate(last - 2, last + 1, task, f"instruction {number}")
    writer.simulator_steps += 4
    writer.mark(units=number + 1, seen={"list": [number]})


def files_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture
def whole(tmp_path):
    with CalvinWriter(tmp_path / "whole") as writer:
        for number in range(len(UNITS)):
            record(writer, number)
    return files_of(tmp_path / "whole" / "training")


def stop_within(root, units, resume):
    """Record some units and a part of the next one."""
    with CalvinWriter(root, resume=resume) as writer:
        for number in range(writer.progress.get("units", 0), units):
            record(writer, number)
        half = np.full((3, 4, 6), 7, dtype=np.uint8)
        for _ in range(4):
            writer.add_frame(np.zeros(15), np.zeros(24), rgb_static=half)
        writer.annotate(64, 66, "close_drawer", "of a unit that did not end")
        raise KeyboardInterrupt


def interrupt(root, units, *, resume=False):
    with pytest.raises(KeyboardInterrupt):
        stop_within(root, units, resume)


def go_on(root):
    with CalvinWriter(root, resume=True) as writer:
        for number in range(writer.progress.get("units", 0), len(UNITS)):
            record(writer, number)
    return files_of(root / "training")


@pytest.mark.parametrize("units", [0, 1, 2, 3])
def test_it_ends_as_without_the_interruption(tmp_path, whole, units):
    interrupt(tmp_path / "data", units)
    stopped = CalvinDataset(tmp_path / "data")
    assert not stopped.complete
    assert len(stopped.episodes) == 2 * units + 1
    assert go_on(tmp_path / "data") == whole
    assert CalvinDataset(tmp_path / "data").complete
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["training"]


def test_a_killed_recording_goes_on_from_where_it_was_saved(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("rftf_torchrl.calvin.data.writer._SAVE_EVERY", -1.0)
    root, killed = tmp_path / "data", []
    for done in range(2):
        writer = CalvinWriter(root, resume=True)
        assert writer.progress.get("units", 0) == done
        record(writer, done)
        writer.add_frame(np.ones(15), np.ones(24), rgb_static=np.zeros((3, 4, 6), np.uint8))
        killed.append(writer)  # and never closed
        assert not CalvinDataset(root).complete
    assert go_on(root) == whole
    assert [path.name for path in root.iterdir()] == ["training"]


def test_the_steps_of_all_parts_are_kept(tmp_path):
    interrupt(tmp_path / "data", 1)
    assert CalvinDataset(tmp_path / "data").simulator_steps == 4
    go_on(tmp_path / "data")
    assert CalvinDataset(tmp_path / "data").simulator_steps == 4 * len(UNITS)


def test_steps_that_are_no_number(tmp_path):
    root = tmp_path / "data"
    with CalvinWriter(root) as writer:
        record(writer, 0)
    folder = root / "training"
    (folder / "simulator_steps.txt").write_text("many\n", encoding="utf-8")
    message = (
        f"CALVIN data in {folder}: 1 problem found:\n  - simulator_steps.txt holds 'many', "
        "expected a number: remove it if none is known"
    )
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        CalvinDataset(root)
    (folder / "simulator_steps.txt").unlink()
    assert CalvinDataset(root).simulator_steps == 0


def test_it_may_stop_again(tmp_path, whole):
    interrupt(tmp_path / "data", 1)
    interrupt(tmp_path / "data", 1, resume=True)
    interrupt(tmp_path / "data", 2, resume=True)
    assert go_on(tmp_path / "data") == whole


def test_it_may_be_killed_while_it_goes_on(tmp_path, whole):
    """Without the chance to write anything: the old mark holds."""
    interrupt(tmp_path / "data", 1)
    writer = CalvinWriter(tmp_path / "data", resume=True)
    record(writer, 1)
    del writer
    assert not CalvinDataset(tmp_path / "data").complete
    assert go_on(tmp_path / "data") == whole


def test_it_may_be_killed_before_the_last_step_of_going_on(tmp_path, whole):
    """Its digests are there, the old mark still holds, and all steps that it used are counted."""
    interrupt(tmp_path / "data", 1)
    mark = tmp_path / "data" / "training" / "interrupted.txt"
    text = mark.read_text(encoding="utf-8")
    go_on(tmp_path / "data")
    mark.write_text(text, encoding="utf-8")
    assert not CalvinDataset(tmp_path / "data").complete
    found = go_on(tmp_path / "data")
    assert found.pop("simulator_steps.txt") == b"20\n"
    assert found.items() - {("digests.json", found["digests.json"])} <= whole.items()
    assert found.keys() == whole.keys() - {"simulator_steps.txt"}
    assert digest_problems(tmp_path / "data" / "training") == []


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_it_may_be_killed_while_it_describes_the_frames(tmp_path, whole, monkeypatch, written):
    interrupt(tmp_path / "data", 1)
    save, saved = np.save, []

    def killed(file, array):
        if len(saved) == written:
            raise SystemExit
        saved.append(file)
        save(file, array)

    monkeypatch.setattr(np, "save", killed)
    with pytest.raises(SystemExit):
        go_on(tmp_path / "data")
    monkeypatch.setattr(np, "save", save)
    assert len(saved) == written
    assert go_on(tmp_path / "data") == whole


def test_no_recording_is_whole_without_its_digests(tmp_path, monkeypatch):
    interrupt(tmp_path / "data", 1)

    def killed(*_, **__):
        raise SystemExit

    monkeypatch.setattr("rftf_torchrl.calvin.data.writer.write_digests", killed)
    with pytest.raises(SystemExit):
        go_on(tmp_path / "data")
    assert not CalvinDataset(tmp_path / "data").complete


def test_progress_is_what_the_last_mark_was_told(tmp_path):
    """Neither what came after nor what a caller does to it."""
    with CalvinWriter(tmp_path) as writer:
        assert writer.progress == {}
        told = [0]
        record(writer, 0)
        writer.mark(told=told)
        told.append(1)
        writer.progress["told"].append(2)
        assert writer.progress == {"told": [0]}


def test_pictures_of_another_size_are_refused_as_ever(tmp_path):
    interrupt(tmp_path, 1)
    large = np.zeros((3, 8, 8), dtype=np.uint8)
    with (
        pytest.raises(DemonstrationError, match="all frames of a split have the same cameras"),
        CalvinWriter(tmp_path, resume=True) as writer,
    ):
        writer.add_frame(np.zeros(15), np.zeros(24), rgb_static=large)
    assert not CalvinDataset(tmp_path).complete


def test_a_whole_split_does_not_go_on(tmp_path, whole):
    with pytest.raises(
        FileNotFoundError, match=r"interrupted\.txt is missing: the split is whole, and"
    ):
        CalvinWriter(tmp_path / "whole", resume=True)
    assert files_of(tmp_path / "whole" / "training") == whole


ADVICE = "; move or remove the folder to record again, or this file to use what there is"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("The recording of this split stopped early.", "names no place to go on from ("),
        ("frame: 70\nspans: [", "names no place to go on from ("),
        ("frame: 70\nspans: 1\nunits: 3", "names no place to go on from ("),
        ("frame: true\nspans: 1", "names no place to go on from (frame True, spans 1)"),
        ("frame: 70\nspans: -1", "names no place to go on from (frame 70, spans -1)"),
        ("frame: 70\nprogress: [1]", "names no place to go on from (progress [1])"),
        (
            "frame: 71\nspans: 1",
            "names frame 71 and 1 annotations, which do not end an episode of this split",
        ),
        (
            "frame: 70\nspans: 9",
            "names frame 70 and 9 annotations, which do not end an episode of this split",
        ),
    ],
)
def test_a_file_that_names_no_mark(tmp_path, text, problem):
    interrupt(tmp_path, 1)
    (tmp_path / "training" / "interrupted.txt").write_text(text, encoding="utf-8")
    (tmp_path / "training" / "digests.json").unlink()
    before = files_of(tmp_path / "training")
    with pytest.raises(DemonstrationError, match=re.escape(problem)) as raised:
        CalvinWriter(tmp_path, resume=True)
    assert str(raised.value).endswith(ADVICE)
    assert files_of(tmp_path / "training") == before


def test_a_lost_frame_is_noticed_before_anything_is_removed(tmp_path):
    interrupt(tmp_path, 1)
    (tmp_path / "training" / "episode_0000065.npz").unlink()
    before = files_of(tmp_path / "training")
    with pytest.raises(DemonstrationError, match=r"episode_0000065\.npz: missing"):
        CalvinWriter(tmp_path, resume=True)
    assert files_of(tmp_path / "training") == before
