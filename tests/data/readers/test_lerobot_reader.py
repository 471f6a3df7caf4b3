"""LeRobot's data sets: both formats and all codecs, a local cache of the hub, and what is wrong."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from _videos import write_lerobot
from pyarrow import parquet

from rftf_torchrl import BadEpisode, DemonstrationError, video_episodes
from rftf_torchrl.data.readers.lerobot_layout import dataset_folder

SETS = {
    "v3.0 AV1": {},
    "v3.0 H.264": {"codec": "libx264"},
    "v3.0 HEVC": {"codec": "libx265"},
    "v3.0 pictures": {"dtype": "image"},
    "v3.0 by LeRobot 0.4": {"pandas_index": True, "codec": "libx264"},
    "v2.1 AV1": {"version": "v2.1"},
    "v2.1 H.264": {"version": "v2.1", "codec": "libx264"},
    "v2.1 pictures": {"version": "v2.1", "dtype": "image"},
    "v2.0": {"version": "v2.0", "codec": "libx264"},
}


@pytest.mark.parametrize("case", SETS)
def test_frames_sentences_outcomes(tmp_path, case):
    made = write_lerobot(tmp_path / "set", **SETS[case])
    found = list(video_episodes(tmp_path / "set"))
    assert [(e.name, e.index, e.instruction, e.success) for e in found] == [
        ("episode 0", 0, "open the drawer", True),
        ("episode 1", 1, "close the drawer", False),
        ("episode 2", 2, "open the drawer", True),
    ]
    for episode, pixels in zip(found, made, strict=True):
        frames = episode.read().permute(0, 2, 3, 1).numpy()
        assert frames.shape == pixels.shape
        # Each frame is the right one: neighbours differ by 16 or more.
        difference = np.abs(frames.astype(int) - pixels.astype(int))
        assert difference.max() <= (0 if "pictures" in case else 6)
        assert episode.fps == 10


def test_parts(tmp_path):
    write_lerobot(tmp_path / "set", dtype="image", episodes=5, success=False)
    found = list(video_episodes(tmp_path / "set", size=8, fps=5, episodes=[1, 2, 4]))
    assert [e.index for e in found] == [1, 2, 4]
    assert {e.success for e in found} == {None}
    assert [e.read().shape for e in found] == [(4, 3, 8, 8), (5, 3, 8, 8), (6, 3, 8, 8)]
    found = video_episodes(tmp_path / "set", tasks=["close the drawer"])
    assert [e.index for e in found] == [1, 3]


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_cameras(tmp_path, version):
    settings = {"version": version, "cameras": ("front", "wrist"), "codec": "libx264"}
    made = write_lerobot(tmp_path / "set", **settings)
    for name, sign in (("front", 1), ("observation.images.wrist", -1)):
        episode = next(video_episodes(tmp_path / "set", options={"camera": name}))
        frames = episode.read().permute(0, 2, 3, 1).numpy()
        expected = made[0] if sign == 1 else 255 - made[0]
        assert np.abs(frames.astype(int) - expected.astype(int)).max() <= 6
    cameras = "observation.images.front, observation.images.wrist (data.options.camera)"
    for options, why in (({}, "there are several cameras"), ({"camera": "x"}, "no camera is 'x'")):
        with pytest.raises(DemonstrationError) as raised:
            next(video_episodes(tmp_path / "set", options=options))
        assert raised.value.problems == (f"{why}: choose among {cameras}",)


def test_an_outcome_of_the_episodes(tmp_path):
    root = tmp_path / "set"
    write_lerobot(root, dtype="image", success=False)
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = parquet.read_table(file).to_pylist()
    for row in rows:
        row["good"] = row["episode_index"] != 2
    parquet.write_table(pa.Table.from_pylist(rows), file)
    found = video_episodes(root, options={"success": "good"})
    assert [e.success for e in found] == [True, True, False]
    with pytest.raises(DemonstrationError) as raised:
        next(video_episodes(root, options={"success": "won"}))
    assert raised.value.problems == (
        "there is no column 'won' of frames or episodes (data.options.success)",
    )


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["success", "failure", "success"], [True, False, True]),
        ([1.0, 0.0, float("nan")], [True, False, None]),
        ([True, None, False], [True, None, False]),
        ([1, -1, 0], [True, "good: success is -1, expected true, false or nothing", False]),
    ],
    ids=["words", "numbers", "unknown", "no-outcome"],
)
def test_outcomes_of_other_types(tmp_path, values, expected, framed):
    root = tmp_path / "set"
    write_lerobot(root, dtype="image", success=False)
    folder = root / ("data" if framed else "meta/episodes")
    for file in folder.rglob("*.parquet"):
        rows = parquet.read_table(file).to_pylist()
        for row in rows:
            row["good"] = values[row["episode_index"]]
        parquet.write_table(pa.Table.from_pylist(rows), file)
    if framed:
        info = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
        info["features"]["good"] = {"dtype": "float32", "shape": [1], "names": None}
        (root / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    found = list(video_episodes(root, options={"success": "good"}))
    assert [getattr(e, "problem", None) or e.success for e in found] == expected


def test_a_data_set_of_the_hub(tmp_path, monkeypatch):
    """The hub's own cache on the disk, without a network."""
    hub = tmp_path / "cache" / "datasets--someone--drawers"
    commit = "0123456789" * 4
    made = write_lerobot(hub / "snapshots" / commit, codec="libx264", cameras=("front", "wrist"))
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    options = {"camera": "front"}
    found = list(video_episodes("someone/drawers", "lerobot", options=options))
    assert len(found) == 3
    assert found[1].read().shape[0] == len(made[1])
    with pytest.raises(FileNotFoundError) as raised:
        dataset_folder("someone/cupboards")
    assert str(raised.value).startswith(
        "there is no folder someone/cupboards, and the hub did not give such a data set: "
    )
    with pytest.raises(FileNotFoundError) as raised:
        dataset_folder("a/b/c")
    assert str(raised.value) == "there is no folder a/b/c, and it is no id of the hub either"
    with pytest.raises(FileNotFoundError) as raised:
        dataset_folder(str(tmp_path))
    assert str(raised.value) == (f"{tmp_path} is no LeRobot data set: meta/info.json is missing")


def problems(root):
    """What is wrong by the time all is decoded."""
    found = {}
    for episode in video_episodes(root):
        if isinstance(episode, BadEpisode):
            found[episode.name] = episode.problem
            continue
        try:
            episode.read()
        except ValueError as error:
            found[episode.name] = str(error)
    return found


def change_rows(file, change):
    """Change the rows of a table."""
    rows = parquet.read_table(file).to_pylist()
    parquet.write_table(pa.Table.from_pylist(change(rows)), file)


def test_missing_shards(tmp_path):
    write_lerobot(tmp_path / "set", codec="libx264", episodes=5)
    (tmp_path / "set/videos/observation.images.front/chunk-000/file-001.mp4").unlink()
    (tmp_path / "set/data/chunk-000/file-002.parquet").unlink()
    film = "videos/observation.images.front/chunk-000/file-001.mp4 is missing"
    assert problems(tmp_path / "set") == {
        "episode 2": film,
        "episode 3": film,
        "episode 4": "data/chunk-000/file-002.parquet is missing",
    }


def test_a_table_outside_of_the_data_set(tmp_path):
    root = tmp_path / "set"
    write_lerobot(root, codec="libx264", episodes=1)
    shutil.copy(root / "data/chunk-000/file-000.parquet", tmp_path / "private.parquet")
    change_info(root, data_path="{chunk_index}.parquet")
    rows = next(root.glob("meta/episodes/*/*.parquet"))
    change_rows(rows, lambda rows: [row | {"data/chunk_index": "../private"} for row in rows])
    assert problems(root) == {
        "episode 0": "meta/episodes says that it lies in '../private.parquet', outside the data set"
    }


def test_wrong_lengths_and_tasks(tmp_path):
    root = tmp_path / "set"
    write_lerobot(root, codec="libx264", episodes=4)
    first, second = sorted(root.glob("data/chunk-000/*.parquet"))

    def spoil(rows):
        for row in rows:
            if row["episode_index"] == 1:
                row["task_index"] = 9
        return rows[1:]

    def two_sentences(rows):
        rows[0]["task_index"] = 1
        return rows

    change_rows(first, spoil)
    change_rows(second, two_sentences)
    assert problems(root) == {
        "episode 0": "data/chunk-000/file-000.parquet has 5 frames of it, but meta/episodes says 6",
        "episode 1": "data/chunk-000/file-000.parquet names task 9, but meta/tasks has 2 tasks, "
        "0, 1",
        "episode 2": "it has 2 instructions, expected 1: tasks [1, 0]",
    }


def test_a_film_that_is_too_short(tmp_path):
    root = tmp_path / "set"
    write_lerobot(root, codec="libx264", episodes=4)
    films = sorted(root.glob("videos/*/chunk-000/*.mp4"))
    shutil.copy(films[0], films[1])  # 13 frames in place of 17
    assert problems(root) == {"episode 3": "it ends after 5 frames from 0.80 s, expected 9"}


def test_a_table_that_cannot_be_read(tmp_path):
    root = tmp_path / "set"
    write_lerobot(root, dtype="image", per_file=1)
    first, second, third = sorted(root.glob("data/chunk-000/*.parquet"))
    first.write_bytes(first.read_bytes()[:100])
    change_rows(
        second,
        lambda rows: [
            {**row, "observation.images.front": {"bytes": None, "path": "/etc/passwd"}}
            for row in rows
        ],
    )
    change_rows(
        third, lambda rows: [{k: v for k, v in row.items() if k != "task_index"} for row in rows]
    )
    found = problems(root)
    assert found.pop("episode 0").startswith("data/chunk-000/file-000.parquet cannot be read (")
    assert found == {
        "episode 1": "the image of frame 0 is not in the table",
        "episode 2": "data/chunk-000/file-002.parquet has no column task_index",
    }


def change_info(root, **changes):
    file = root / "meta" / "info.json"
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )


EXPECTED = (
    "expected a path in the folder with {chunk_index}, {file_index}, {video_key} or v2's "
    "{episode_chunk}, {episode_index}"
)


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        (
            {"codebase_version": "v4.0"},
            ["meta/info.json: codebase_version is 'v4.0', this library reads v2.0, v2.1, v3.0"],
        ),
        (
            {"data_path": "../{chunk_index}.parquet", "video_path": "/{video_key}.mp4"},
            [
                f"meta/info.json: data_path is '../{{chunk_index}}.parquet', {EXPECTED}",
                f"meta/info.json: video_path is '/{{video_key}}.mp4', {EXPECTED}",
            ],
        ),
        (
            {"data_path": "{chunk_index.__class__}", "video_path": "{file_index:0999999999d}"},
            [
                f"meta/info.json: data_path is '{{chunk_index.__class__}}', {EXPECTED}",
                f"meta/info.json: video_path is '{{file_index:0999999999d}}', {EXPECTED}",
            ],
        ),
        (
            {"features": {"../a": {"dtype": "video"}}},
            ["meta/info.json: the feature '../a' leaves the folder"],
        ),
        ({"fps": 0}, ["meta/info.json: fps=0: must be above 0"]),
        ({"features": {}}, ["it has no images: choose among none (data.options.camera)"]),
    ],
)
def test_info_that_cannot_be_used(tmp_path, changes, listed):
    write_lerobot(tmp_path / "set", dtype="image")
    change_info(tmp_path / "set", **changes)
    with pytest.raises(DemonstrationError) as raised:
        next(video_episodes(tmp_path / "set"))
    assert list(raised.value.problems)[: len(listed)] == listed


def test_meta_that_cannot_be_used(tmp_path):
    root = tmp_path / "set"
    write_lerobot(root, dtype="image", version="v2.1")
    (root / "meta" / "tasks.jsonl").write_text(
        '{"task_index": 0, "task": 3}\n' * 2, encoding="utf-8"
    )
    rows = (root / "meta" / "episodes.jsonl").read_text(encoding="utf-8")
    (root / "meta" / "episodes.jsonl").write_text(
        rows + rows.splitlines()[0] + '\n{"length": 3}\n', encoding="utf-8"
    )
    with pytest.raises(DemonstrationError) as raised:
        next(video_episodes(root))
    line = "meta/tasks: expected task_index and task, got {'task_index': 0, 'task': 3}"
    assert list(raised.value.problems) == [
        line,
        line,
        "meta/episodes: episode 0 is there twice",
        "meta/episodes: a row lacks episode_index or length",
    ]
    (root / "meta" / "tasks.jsonl").unlink()
    (root / "meta" / "info.json").write_text("{", encoding="utf-8")
    with pytest.raises(DemonstrationError, match=r"meta/info\.json: unreadable JSON \("):
        next(video_episodes(root))
