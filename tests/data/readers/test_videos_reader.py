"""A folder of videos: instructions, outcomes, and everything that can be wrong, listed at once."""

import json
import re

import numpy as np
import pytest
from _videos import brightening, write_captions, write_film, write_videos
from PIL import Image

from rftf_torchrl import BadEpisode, DemonstrationError, video_episodes


def said(root, **options):
    """Name, instruction, outcome of each episode, or what is wrong."""
    return [
        str(each)
        if isinstance(each, BadEpisode)
        else (each.name, each.instruction, each.success, each.task, each.split)
        for each in video_episodes(root, "videos", options=options)
    ]


def films(root, *names):
    for name in names:
        write_film(root / name, brightening(3))


def test_one_video_of_a_folder(tmp_path):
    films(tmp_path, "a.mp4", "b.mp4")
    rows = [{"file": f"{f}.mp4", "instruction": f and f"open {f}"} for f in ("a", "b", "c", "")]
    write_captions(tmp_path, rows)
    found = list(video_episodes(tmp_path / "b.mp4", "videos"))
    assert [getattr(e, "problem", None) or e.instruction for e in found] == ["open b"]


def test_captions(tmp_path):
    films(tmp_path, "a.mp4", "b/c.mkv", "d.mp4")
    rows = [
        {"file": "a.mp4", "instruction": "open, then close", "success": "yes", "task": "do"},
        {"file": "./b/c.mkv", "instruction": "open", "success": "0", "split": "test"},
        {"file": "d.mp4", "instruction": "open"},
    ]
    expected = [
        ("a.mp4", "open, then close", True, "do", None),
        ("b/c.mkv", "open", False, None, "test"),
        ("d.mp4", "open", None, None, None),
    ]
    names = ["file", "instruction", "success", "task", "split"]
    write_captions(tmp_path, [{name: row.get(name, "") for name in names} for row in rows])
    assert said(tmp_path) == expected
    (tmp_path / "captions.csv").unlink()
    rows[0]["success"], rows[1]["success"] = True, False
    lines = "".join(json.dumps(row) + "\n\n" for row in rows)
    (tmp_path / "captions.jsonl").write_text(lines, encoding="utf-8")
    assert said(tmp_path) == expected


def test_one_sentence_and_outcomes_by_folder(tmp_path):
    films(tmp_path, "success/a.mp4", "failures/x/b.mp4", "c.mp4", "failures/success/d.mp4")
    assert [row[:3] for row in said(tmp_path, instruction="open")] == [
        ("c.mp4", "open", None),
        ("failures/success/d.mp4", "open", True),
        ("failures/x/b.mp4", "open", False),
        ("success/a.mp4", "open", True),
    ]


def test_a_text_beside_each(tmp_path):
    films(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "a.txt").write_text("open the drawer\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text(" \n", encoding="utf-8")
    assert said(tmp_path) == [
        ("a.mp4", "open the drawer", None, None, None),
        "b.mp4: it has no instruction: write b.txt beside it, a captions.csv with file and "
        "instruction in the folder, or give one for all (data.options.instruction)",
        "c.mp4: c.txt is empty",
    ]


def test_one_film(tmp_path):
    films(tmp_path, "a.mp4", "b.mp4")
    assert said(tmp_path / "a.mp4", instruction="open") == [("a.mp4", "open", None, None, None)]


def test_folders_of_pictures(tmp_path):
    for number, pixels in enumerate(brightening(12)):
        folder = tmp_path / "success" / "one"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"frame{number}.png")
    (folder / "._frame0.png").write_bytes(b"what another system leaves beside its files")
    (folder.parent / "one.txt").write_text("open", encoding="utf-8")
    hidden = tmp_path / ".thumbnails" / "one"
    hidden.mkdir(parents=True)
    Image.fromarray(pixels).save(hidden / "frame0.png")
    films(hidden, "deleted.mp4")
    films(tmp_path, "two.mp4")
    Image.fromarray(pixels).save(tmp_path / "thumbnail.png")
    (tmp_path / "two.txt").write_text("close", encoding="utf-8")
    one, two = video_episodes(tmp_path, "videos")
    assert (one.name, one.success, two.name) == ("success/one", True, "two.mp4")
    levels = one.read()[:, 0, 0, -1].int()
    assert len(levels) == 12
    assert (levels.diff() > 0).all()  # 10 comes after 9
    (one, _) = video_episodes(tmp_path, "videos", fps=2, options={"picture_fps": 10.0})
    assert len(one.read()) == 4
    assert one.fps == 10


def test_an_image_that_is_a_broken_link_spoils_its_folder_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(brightening(1)[0]).save(tmp_path / name / "0.png")
        (tmp_path / f"{name}.txt").write_text("open", encoding="utf-8")
    (tmp_path / "one" / "1.png").symlink_to(tmp_path / "nowhere.png")
    one, two = video_episodes(tmp_path, "videos")
    assert isinstance(one, BadEpisode)
    assert one.problem.startswith("it cannot be read ([Errno 2] No such file")
    assert (two.name, two.index) == ("two", 1)


def test_pictures_of_two_sizes(tmp_path):
    for number, edge in enumerate((8, 9)):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((edge, 8, 3), np.uint8)).save(tmp_path / "one" / f"{number}.png")
    (episode,) = video_episodes(tmp_path, "videos", options={"instruction": "open"})
    with pytest.raises(ValueError, match=r"^its images have 2 different sizes: "):
        episode.read()


def test_everything_wrong_with_captions_at_once(tmp_path):
    films(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (tmp_path / "captions.csv").write_text(
        "file,instruction,success,split\n"
        "a.mp4,open,true,\n"
        "a.mp4,close,true,\n"
        "b.mp4,,true,\n"
        "c.mp4,open,maybe,\n"
        "nowhere.mp4,open,,\n"
        "../e.mp4,open,,\n"
        "d.mp4,open, then close,,\n"
        "d.mp4,open,,validation\n"
        ",open,,\n",
        encoding="utf-8",
    )
    assert said(tmp_path) == [
        "captions.csv line 4: the instruction is empty",
        "captions.csv line 5: success is 'maybe', expected true, false or nothing",
        f"captions.csv line 6: there is no video 'nowhere.mp4' in {tmp_path}",
        f"captions.csv line 7: the file '../e.mp4' is outside of {tmp_path}",
        "captions.csv line 8: it has more values than columns: put an instruction with a comma in "
        "quotes",
        "captions.csv line 9: split is 'validation', expected train, test or nothing",
        "captions.csv line 10: the file is empty",
        "a.mp4: it has 2 captions: captions.csv line 2, captions.csv line 3",
        "b.mp4: no line of captions.csv names it with an instruction",
        "c.mp4: no line of captions.csv names it with an instruction",
        "d.mp4: no line of captions.csv names it with an instruction",
    ]


def test_lines_of_json(tmp_path):
    films(tmp_path, "a.mp4")
    (tmp_path / "captions.jsonl").write_text(
        '{"file": "a.mp4", "instruction": "open"}\n{"file": \n[1]\n'
        '{"file": "a.mp4", "text": "x"}\n',
        encoding="utf-8",
    )
    problems = said(tmp_path)
    assert problems[0].startswith("captions.jsonl line 2: unreadable JSON (")
    assert problems[1:3] == [
        "captions.jsonl line 3: expected an object in braces",
        "captions.jsonl line 4: unknown 'text': it may have file, instruction, success, task, "
        "split",
    ]
    assert problems[3][:2] == ("a.mp4", "open")


NO_VIDEO = "there is none: expected .mp4, .m4v, .mov, .mkv, .webm, .avi, .gif or folders of images"


@pytest.mark.parametrize(
    ("files", "options", "problem"),
    [
        ({}, {}, f"Videos in {{root}}: 1 problem found:\n  - {NO_VIDEO}"),
        (
            {"captions.csv": "video,text\n", "a.mp4": ""},
            {},
            "{root}/captions.csv: 1 problem found:\n  - its first line names the columns "
            "['video', 'text'], expected file and instruction",
        ),
        (
            {"captions.csv": "", "captions.jsonl": "", "a.mp4": ""},
            {"instruction": "open"},
            "Videos in {root}: 1 problem found:\n  - instructions come from captions.csv and "
            "captions.jsonl and instruction: keep one of them",
        ),
    ],
)
def test_a_folder_that_cannot_be_read(tmp_path, files, options, problem):
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    expected = problem.replace("{root}", str(tmp_path))
    with pytest.raises(DemonstrationError, match=f"^{re.escape(expected)}$"):
        list(video_episodes(tmp_path, "videos", options=options))


def test_another_file(tmp_path):
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DemonstrationError, match="there is none"):
        list(video_episodes(tmp_path / "a.txt", "videos"))


def test_captions_in_another_encoding(tmp_path):
    write_videos(tmp_path, 1)
    content = (tmp_path / "captions.csv").read_bytes()
    (tmp_path / "captions.csv").write_bytes(content.replace(b"drawer", b"T\xfcr"))
    with pytest.raises(DemonstrationError, match=r"it is not UTF-8 text"):
        list(video_episodes(tmp_path, "videos"))
