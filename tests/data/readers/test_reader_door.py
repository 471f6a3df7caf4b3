"""The door of the readers: which one, its options, and one of the user's own."""

import logging
import re
import sys

import numpy as np
import pytest
import torch
from _videos import write_hdf5, write_lerobot, write_videos

from rftf_torchrl import (
    BadEpisode,
    BadEpisodeError,
    CalvinWriter,
    VideoEpisode,
    video_episodes,
    write_synthetic_demonstrations,
)
from rftf_torchrl.data.readers.door import READERS, guess_reader, reader_problems


def write_calvin(root):
    with CalvinWriter(root) as writer:
        for number in range(8):
            picture = np.full((3, 200, 200), 30 * number, np.uint8)
            frame = writer.add_frame(np.zeros(15), np.zeros(24), rgb_static=picture)
        writer.annotate(frame - 7, frame + 1, "open_drawer", "pull the drawer open")
    return root


def write_one(kind, root):
    if kind == "videos":
        root.mkdir()
        return write_videos(root, 1)
    if kind == "lerobot":
        write_lerobot(root, dtype="image")
    elif kind == "hdf5":
        write_hdf5(root / "a.hdf5")
    elif kind == "demonstrations":
        write_synthetic_demonstrations(root, length=8)
    else:
        write_calvin(root)
    return root


@pytest.mark.parametrize("kind", READERS.names)
def test_the_kind_is_guessed(tmp_path, caplog, kind):
    root = write_one(kind, tmp_path / "set")
    assert guess_reader(root) == kind
    with caplog.at_level(logging.INFO):
        episode = next(video_episodes(root, size=4, fps=10))
    assert caplog.messages == [f"{root} is read as {kind}"]
    frames = episode.read()
    assert frames.shape[1:] == (3, 4, 4)
    assert frames[-1].float().mean() > frames[0].float().mean()
    assert episode.index == 0


def test_what_cannot_be_guessed(tmp_path):
    write_lerobot(tmp_path / "set", dtype="image")
    write_hdf5(tmp_path / "set" / "a.hdf5")
    with pytest.raises(ValueError, match="may be") as raised:
        guess_reader(tmp_path / "set")
    assert str(raised.value) == (
        f"{tmp_path}/set may be lerobot or hdf5: say which, by the kind (data.kind=lerobot)"
    )
    with pytest.raises(FileNotFoundError) as raised:
        guess_reader("nowhere")
    assert str(raised.value) == (
        "there is nothing at nowhere. For a LeRobot data set of the hub, give its id and the kind "
        "lerobot (data.kind=lerobot)"
    )


def test_calvin(tmp_path):
    root = write_calvin(tmp_path / "set")
    (episode,) = video_episodes(root, size=4, fps=10)
    assert episode.instruction == "pull the drawer open"
    assert (episode.task, episode.success, episode.split) == ("open_drawer", True, "train")
    assert episode.read()[:, 0, 0, 0].tolist() == [0, 90, 180, 210]
    assert [e.task for e in video_episodes(root, tasks=["open_drawer"])] == ["open_drawer"]
    with pytest.raises(ValueError, match="no such episode or task: 'close_drawer'"):
        next(video_episodes(root, tasks=["close_drawer"]))
    (root / "training" / "scene_info.npy").unlink()  # images need no scene
    assert len(next(video_episodes(root, size=4)).read()) == 8


OWN = """
import torch
from rftf_torchrl import BadEpisode, VideoEpisode

def read(path, *, size, fps, level: int = 3):
    yield VideoEpisode("a", "open", lambda: torch.full((2, 3, size, size), level).byte())
    yield BadEpisode("b", "it is empty")
    yield BadEpisode("c", "it is empty", 7)
    yield VideoEpisode("d", "close", torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_reader.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_reader:read"
    sys.modules.pop("my_reader", None)


def test_a_reader_of_ones_own(own):
    found = list(video_episodes("anywhere", own, size=5, options={"level": 9}))
    assert [each.index for each in found] == [0, None, 7, 3]
    assert found[0].read().unique().tolist() == [9]
    with pytest.raises(BadEpisodeError) as raised:
        found[3].read()
    assert str(raised.value) == "it has 1 frame, expected 2 or more: order needs two"
    # A bad one that has a number can be left out; one that has none is always told.
    kept = list(video_episodes("anywhere", own, size=5, episodes=[3]))
    assert [each.name for each in kept] == ["b", "d"]
    kept = list(video_episodes("anywhere", own, size=5, tasks=["open"]))
    assert [each.name for each in kept] == ["a", "b", "c"]


def test_what_was_asked_for_and_is_not_there_is_named(tmp_path):
    source = write_synthetic_demonstrations(tmp_path / "demos")
    asked = video_episodes(source, episodes=[0, 9], tasks=["do task 0", "do tsak 1"])
    assert next(asked).index == 0
    message = f"{source} has no such episode or task: 9, 'do tsak 1' (data.episodes, data.tasks)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        next(asked)


@pytest.mark.parametrize(
    ("kind", "options", "problems"),
    [
        (
            "lerobt",
            {},
            [
                "unknown reader 'lerobt': choose from videos, lerobot, hdf5, calvin, "
                "demonstrations, give your own as 'module:Name', or offer it as an entry point in "
                "the group 'rftf_torchrl.readers'. Did you mean 'lerobot'?"
            ],
        ),
        (
            "videos",
            {"picture_fps": 0, "size": 3},
            [
                "o.picture_fps=0: must be above 0",
                "o.size: the reader 'videos' has no such option, it has instruction, picture_fps",
            ],
        ),
        (
            "calvin",
            {"camera": "x"},
            ["o.camera: the reader 'calvin' has no such option, it has none"],
        ),
    ],
)
def test_options_are_checked(kind, options, problems):
    assert reader_problems(kind, options, "o.") == problems


def test_an_option_that_is_wrong_stops_the_reading(tmp_path):
    with pytest.raises(ValueError, match=r"^camera: the reader 'videos' has no such option"):
        next(video_episodes(tmp_path, options={"camera": "x"}))


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        (
            torch.zeros(3, 3, 4, 4),
            "its frames are torch.float32 [3, 3, 4, 4], expected uint8 [T, 3, h, w]",
        ),
        (
            torch.zeros(3, 4, 4, 3).byte(),
            "its frames are torch.uint8 [3, 4, 4, 3], expected uint8 [T, 3, h, w]",
        ),
        (torch.zeros(0, 3, 4, 4).byte(), "it has 0 frames, expected 2 or more: order needs two"),
    ],
)
def test_frames_are_checked(frames, problem):
    with pytest.raises(BadEpisodeError) as raised:
        VideoEpisode("a", "open", frames).read()
    assert str(raised.value) == problem


def test_an_error_of_a_reader_is_told_as_its_episode_s():
    def broken():
        raise OSError("the disk is gone")

    with pytest.raises(BadEpisodeError, match=r"^the disk is gone$"):
        VideoEpisode("a", "open", broken).read()
    with pytest.raises(ValueError, match=r"^a: the instruction is empty$"):
        VideoEpisode("a", " ", broken)
    assert str(BadEpisode("a", "broken")) == "a: broken"
