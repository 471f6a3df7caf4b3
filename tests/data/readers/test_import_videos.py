"""A source decoded once: reused, resumed after a kill, made again when it changes."""

import json
import logging
import re

import pytest
import torch
from _videos import brightening, write_captions, write_film, write_videos
from tensordict import MemoryMappedTensor

from rftf_torchrl import (
    DataConfig,
    DemonstrationError,
    import_videos,
    load_demonstrations,
    sample_clips,
    write_synthetic_demonstrations,
)
from rftf_torchrl.data.readers import importing
from rftf_torchrl.data.readers.episode import BadEpisodeError, VideoEpisode

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path):
    (tmp_path / "videos").mkdir()
    return write_videos(tmp_path / "videos", 6, failures=True)


def config(source, **settings):
    return DataConfig(path=str(source), **{"image_size": 8, "fps": None, **settings})


@pytest.fixture
def decoded(monkeypatch):
    """Names of the episodes that were decoded, in order."""
    names = []
    read = VideoEpisode.read
    monkeypatch.setattr(VideoEpisode, "read", lambda self: names.append(self.name) or read(self))
    return names


def same(one, other):
    return one.episodes == other.episodes and all(
        torch.equal(one.frames[key], other.frames[key]) for key in one.frames.keys(True, True)
    )


def test_demonstrations_without_actions(tmp_path, source):
    found = import_videos(config(source), tmp_path / "data")
    assert not {"action", ("observation", "state")} & set(found.frames.keys(True))
    assert isinstance(found.frames["observation", "image"], MemoryMappedTensor)
    assert [task.name for task in found.tasks] == ["close the drawer", "open the drawer"]
    assert len(found.episodes) == 12
    first = found.episodes[0]
    assert (first.source, first.success, len(first)) == ("close-1-failed.mp4", False, 10)
    second = found.frames[found.episodes[1].start : found.episodes[1].stop]
    assert (second["observation", "image"][:, 0, 0, -1].int().diff() < 0).all()
    clips = sample_clips(found, batch_size=4, frames=3, generator=torch.Generator())
    assert clips["observation", "image"].shape == (4, 3, 3, 8, 8)
    with pytest.raises(KeyError, match="'action' is not in the demonstrations"):
        found.check_keys(["action"])
    assert same(load_demonstrations(tmp_path / "data"), found)


def test_the_split_is_by_episode_and_by_outcome(tmp_path, source):
    found = import_videos(config(source, held_out=0.34), tmp_path / "data")
    held_out = [(e.task_id, e.success) for e in found.select(split="test").episodes]
    assert sorted(held_out) == [(task, won) for task in (0, 1) for won in (False, True)]
    assert same(import_videos(config(source, held_out=0.34), tmp_path / "again"), found)
    found = import_videos(config(source, held_out=0.0), tmp_path / "all")
    assert {e.split for e in found.episodes} == {"train"}


def test_a_split_that_the_source_says(tmp_path):
    rows = []
    for number in range(4):
        write_film(tmp_path / "v" / f"{number}.mp4", brightening(3))
        split = "test" if number == 2 else ""
        rows.append({"file": f"{number}.mp4", "instruction": "open", "split": split})
    write_captions(tmp_path / "v", rows)
    found = import_videos(config(tmp_path / "v", held_out=0.0), tmp_path / "data")
    assert [e.split for e in found.episodes] == ["train", "train", "test", "train"]
    assert {e.success for e in found.episodes} == {None}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["train"] * 4, ["train"] * 4),
        (["", "", "test", ""], ["train", "train", "test", "train"]),
        (["train", "", "", "train"], ["train", "test", "train", "train"]),
    ],
)
def test_what_the_source_says_of_the_split_is_kept(tmp_path, said, expected):
    for number in range(4):
        write_film(tmp_path / "v" / f"{number}.mp4", brightening(3))
    rows = [{"file": f"{n}.mp4", "instruction": "open", "split": s} for n, s in enumerate(said)]
    write_captions(tmp_path / "v", rows)
    found = import_videos(config(tmp_path / "v", held_out=0.5), tmp_path / "data")
    assert [e.split for e in found.episodes] == expected


def test_a_source_without_test_episodes_is_split(tmp_path):
    source = write_synthetic_demonstrations(tmp_path / "demos", episodes_per_task=5)
    assert {e.split for e in load_demonstrations(source).episodes} == {"train"}
    found = import_videos(config(source, held_out=0.4), tmp_path / "data")
    assert [e.task_id for e in found.select(split="test").episodes] == [0, 0, 1, 1]


def test_another_source_that_cannot_be_read_leaves_what_is_there(tmp_path, source):
    first = import_videos(config(source), tmp_path / "data")
    with pytest.raises((DemonstrationError, FileNotFoundError)):
        import_videos(config(tmp_path / "none", kind="videos"), tmp_path / "data")
    assert same(load_demonstrations(tmp_path / "data"), first)


def test_what_the_disk_lost_once_is_read_again(tmp_path, source, monkeypatch):
    read = VideoEpisode.read

    def fails(self):
        if self.name == "open-4.mp4":
            raise BadEpisodeError("the disk") from OSError(5, "input/output error")
        return read(self)

    monkeypatch.setattr(VideoEpisode, "read", fails)
    assert len(import_videos(config(source, skip_bad=True), tmp_path / "data").episodes) == 11
    made = (tmp_path / "data" / "source.json").stat().st_mtime_ns
    assert len(import_videos(config(source, skip_bad=True), tmp_path / "data").episodes) == 11
    assert (tmp_path / "data" / "source.json").stat().st_mtime_ns == made, "while it stays lost"
    monkeypatch.setattr(VideoEpisode, "read", read)
    assert len(import_videos(config(source, skip_bad=True), tmp_path / "data").episodes) == 12


def test_it_is_used_again(tmp_path, source, decoded):
    first = import_videos(config(source), tmp_path / "data")
    count = len(decoded)
    assert same(import_videos(config(source), tmp_path / "data"), first)
    assert len(decoded) == count == 12
    # Whether episodes may be skipped decides nothing here, and where it lies neither.
    import_videos(config(source, skip_bad=True, cache="x"), tmp_path / "data")
    assert len(decoded) == count


@pytest.mark.parametrize("settings", [{"image_size": 6}, {"fps": 5.0}, {"held_out": 0.5}])
def test_other_settings_make_it_anew(tmp_path, source, decoded, settings, caplog):
    import_videos(config(source), tmp_path / "data")
    decoded.clear()
    with caplog.at_level(logging.INFO):
        found = import_videos(config(source, **settings), tmp_path / "data")
    assert len(decoded) == 12
    assert caplog.messages[-1] == (
        f"{tmp_path}/data is made again: the source or the settings have changed"
    )
    assert same(import_videos(config(source, **settings), tmp_path / "other"), found)


def test_a_changed_source_makes_it_anew(tmp_path, source, decoded):
    import_videos(config(source), tmp_path / "data")
    write_film(source / "open-4.mp4", brightening(5))
    decoded.clear()
    found = import_videos(config(source), tmp_path / "data")
    assert len(decoded) == 12
    (changed,) = (e for e in found.episodes if e.source == "open-4.mp4")
    assert len(changed) == 5
    captions = source / "captions.csv"
    captions.write_text(
        captions.read_text(encoding="utf-8").replace("open the drawer,false", "pull it,false"),
        encoding="utf-8",
    )
    found = import_videos(config(source), tmp_path / "data")
    assert "pull it" in [task.name for task in found.tasks]


class Killed(BaseException):
    """A process that is killed cannot catch it."""


@pytest.mark.parametrize("after", [0, 1, 5, 11])
@pytest.mark.parametrize("where", ["decoding", "frames", "line"])
def test_a_killed_import_goes_on(tmp_path, source, decoded, monkeypatch, after, where):
    whole = import_videos(config(source), tmp_path / "whole")
    decoded.clear()
    with monkeypatch.context() as patch:
        read = VideoEpisode.read

        def killed(self):
            if len(decoded) == after:
                raise Killed
            return read(self)

        patch.setattr(VideoEpisode, "read", killed)
        with pytest.raises(Killed):
            import_videos(config(source), tmp_path / "data")
    assert not (tmp_path / "data").exists()
    hidden = tmp_path / ".data.importing"
    if where == "frames":  # half an episode was written
        with (hidden / "image").open("ab") as file:
            file.write(b"x" * 1000)
    elif where == "line":  # and half the line that says so
        with (hidden / "image").open("ab") as file:
            file.write(b"x" * 1000)
        with (hidden / "image.jsonl").open("ab") as file:
            file.write(b'{"end": 1')
    decoded.clear()
    assert same(import_videos(config(source), tmp_path / "data"), whole)
    assert len(decoded) == 12 - after
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".data")) == [
        ".data.lock"
    ]


def test_a_video_that_could_not_be_read_is_tried_again(tmp_path, source, monkeypatch):
    read = VideoEpisode.read

    def locked(self):
        if self.name == "open-4.mp4":
            raise BadEpisodeError("no") from PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(VideoEpisode, "read", locked)
    with pytest.raises(DemonstrationError, match="open-4"):
        import_videos(config(source), tmp_path / "data")
    monkeypatch.setattr(VideoEpisode, "read", read)
    assert len(import_videos(config(source), tmp_path / "data").episodes) == 12


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_a_damaged_record_of_the_source_is_named(tmp_path, source, text):
    file = import_videos(config(source), tmp_path / "data").root / "source.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{file} is damaged (")):
        import_videos(config(source), tmp_path / "data")


def test_a_damaged_piece_of_a_stopped_import_is_refused_by_name(tmp_path, source):
    (source / "open-4.mp4").write_bytes(b"")
    with pytest.raises(DemonstrationError):
        import_videos(config(source), tmp_path / "data")
    image = tmp_path / ".data.importing" / "image"
    content = bytearray(image.read_bytes())
    content[0] ^= 1
    image.write_bytes(content)
    with pytest.raises(ValueError) as raised:
        import_videos(config(source), tmp_path / "data")
    assert str(raised.value) == (
        f"{image}.jsonl, line 1: the line, or its bytes in image, are damaged or of an earlier "
        "version. Remove both files, and they are made again."
    )
    image.unlink()
    image.with_name("image.jsonl").unlink()
    found = import_videos(config(source, skip_bad=True), tmp_path / "data")
    assert len(found.episodes) == 11


def test_a_killed_import_of_other_settings_is_not_gone_on_with(tmp_path, source, decoded):
    (source / "open-4.mp4").write_bytes(b"")
    with pytest.raises(DemonstrationError):
        import_videos(config(source), tmp_path / "data")
    decoded.clear()
    found = import_videos(config(source, image_size=6, skip_bad=True), tmp_path / "data")
    assert len(decoded) == 12
    assert found.frames["observation", "image"].shape[-1] == 6


@pytest.fixture
def bad(source):
    """Three videos are broken, and a caption is about none."""
    (source / "open-4.mp4").write_bytes(b"")
    write_film(source / "open-2.mp4", brightening(1))
    captions = source / "captions.csv"
    lines = captions.read_text(encoding="utf-8").replace(
        "open-0.mp4,open the drawer", "lost.mp4,open the drawer"
    )
    long = " ".join(["very"] * 17)
    captions.write_text(
        lines.replace("close-1.mp4,close the drawer", f"close-1.mp4,{long}"), encoding="utf-8"
    )
    return source


LISTED = [
    "captions.csv line 2: there is no video 'lost.mp4' in {source}",
    "close-1.mp4: The instruction '{long}' has 17 tokens, but max_length is 16. Raise max_length, "
    "or shorten the instruction. (data.max_words)",
    "open-0.mp4: no line of captions.csv names it with an instruction",
    "open-2.mp4: it has 1 frame, expected 2 or more: order needs two",
    "open-4.mp4: open-4.mp4 cannot be decoded (Invalid data found when processing input)",
]


def test_everything_that_is_wrong_is_listed_at_once(tmp_path, bad, decoded):
    long = " ".join(["very"] * 17)
    listed = [line.format(source=bad, long=long) for line in LISTED]
    for _ in range(2):
        with pytest.raises(DemonstrationError) as raised:
            import_videos(config(bad), tmp_path / "data")
        assert list(raised.value.problems) == listed
        assert str(raised.value).startswith(f"Data in {bad}: 5 problems found:\n  - captions.csv")
        assert not (tmp_path / "data").exists()
        assert len(decoded) == 10  # once, in the first attempt


def test_bad_episodes_are_skipped_and_counted(tmp_path, bad, caplog, decoded):
    with pytest.raises(DemonstrationError):
        import_videos(config(bad), tmp_path / "data")
    count = len(decoded)
    found = import_videos(config(bad, skip_bad=True), tmp_path / "data")
    assert len(decoded) == count
    file = tmp_path / "data" / "source.json"
    assert caplog.messages[-1] == (f"5 of 13 episodes of {bad} are left out: {file} lists them")
    assert len(found.episodes) == 8
    records = json.loads(file.read_text(encoding="utf-8"))["episodes"]
    assert [r["name"] for r in records if "problem" in r] == [
        "captions.csv line 2",
        "close-1.mp4",
        "open-0.mp4",
        "open-2.mp4",
        "open-4.mp4",
    ]
    with pytest.raises(DemonstrationError, match="5 problems found"):
        import_videos(config(bad), tmp_path / "data")
    assert same(load_demonstrations(tmp_path / "data"), found)


def test_a_mended_episode_is_decoded_and_those_before_are_kept(tmp_path, source, decoded):
    whole = import_videos(config(source), tmp_path / "whole")
    content = (source / "open-4.mp4").read_bytes()
    (source / "open-4.mp4").write_bytes(b"")
    with pytest.raises(DemonstrationError):
        import_videos(config(source), tmp_path / "data")
    (source / "open-4.mp4").write_bytes(content)
    decoded.clear()
    assert same(import_videos(config(source), tmp_path / "data"), whole)
    assert decoded == ["open-4.mp4"]


def test_nothing_is_left(tmp_path, source):
    with pytest.raises(DemonstrationError) as raised:
        import_videos(config(source, episodes=[]), tmp_path / "data")
    assert raised.value.problems == (
        "there is no episode, or data.episodes and data.tasks leave none",
    )
    for film in source.glob("*.mp4"):
        film.write_bytes(b"")
    with pytest.raises(DemonstrationError, match="12 problems found"):
        import_videos(config(source, skip_bad=True), tmp_path / "data")


def test_a_folder_of_something_else_is_left_alone(tmp_path, source):
    root = write_synthetic_demonstrations(tmp_path / "data")
    with pytest.raises(FileExistsError) as raised:
        import_videos(config(source), root)
    assert str(raised.value) == (
        f"{root} exists and was not imported from a source: give another folder (data.cache)"
    )
    load_demonstrations(root)


def test_the_frames_go_to_the_disk_one_episode_at_a_time(tmp_path, source, monkeypatch):
    sizes = []
    read = VideoEpisode.read

    def measured(self):
        file = tmp_path / ".data.importing" / "image"
        sizes.append(file.stat().st_size)
        return read(self)

    monkeypatch.setattr(VideoEpisode, "read", measured)
    found = import_videos(config(source), tmp_path / "data")
    assert sizes == [3 * 8 * 8 * episode.start for episode in found.episodes]
    assert found.simulator == importing.SIMULATOR
