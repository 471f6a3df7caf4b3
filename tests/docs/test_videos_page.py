"""The page on videos and its tutorial: Python runs, and commands do what is said."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from _composed import composed
from _towers import saved
from _videos import brightening, write_film, write_lerobot

from rftf_torchrl import check_config, load_demonstrations

pytestmark = pytest.mark.recipe

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to" / "videos.md").read_text(encoding="utf-8")
TUTORIAL = (DOCS / "tutorials" / "plot_05_videos.py").read_text(encoding="utf-8")
TINY = ["value.steps=3", "value.clips=4", "value.frames=3", "evaluation.video_size=64"]
TINY += ["evaluation.video_episodes=1", "logger=none", "device=cpu", "data.held_out=0.5"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands():
    lines = "".join(blocks("bash")).splitlines()
    lines += re.findall(r"^#     (rftf .*)", TUTORIAL.replace(" \\\n#", ""), re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines if line.startswith("rftf ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder with the page's sources, as the working directory."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("user")
    captions = blocks("text")[0]
    for number in range(2, 5):
        for word, outcome in (("open", "true"), ("open", "false"), ("close", "true")):
            name = f"{word}/{number}-{outcome}.mp4"
            captions += f"{name},{word} the drawer,{outcome}\n"
    (folder / "my_videos").mkdir()
    (folder / "my_videos" / "captions.csv").write_text(captions, encoding="utf-8")
    for line in captions.splitlines()[1:]:
        write_film(folder / "my_videos" / line.split(",")[0], brightening(6))
    write_lerobot(folder / "my_lerobot_data", codec="libx264", cameras=("front", "wrist"))
    saved("dinov2", folder / "towers" / "dinov2")
    python = blocks("python")[0]
    (folder / "my_reader.py").write_text(python[: python.index("\nfolder =")], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder
    sys.modules.pop("my_reader", None)


def test_the_commands_of_the_page(folder, rftf):
    """In their order: some go on from what an earlier one wrote."""
    (tuned,) = (command for command in commands() if command[0] == "finetune")
    for command in commands():
        if command != tuned:
            check_command(rftf, command)
    assert check_config(composed(*tuned[1:])).folder.value_model == Path(
        "outputs/drawers/value/value.safetensors"
    )


def check_command(rftf, command):
    rftf(*command, *TINY)
    if command[0] == "watch":
        return
    (output,) = (word.removeprefix("output=") for word in command if word.startswith("output="))
    if command[0] == "value-report":
        assert "## Success and failure" in Path(output, "value_report", "report.md").read_text(
            encoding="utf-8"
        )
    elif command[0] == "annotate":
        assert "## Summary" in Path(output, "annotation", "report.md").read_text(encoding="utf-8")
    else:
        assert Path(output, "value", "value.safetensors").is_file()
        first = load_demonstrations(Path(output, "data")).episodes[0]
        assert first.source in ("close/0.mp4", "episode 0")


def test_the_python_of_the_page(folder):
    shutil.rmtree(folder / "my_arrays", ignore_errors=True)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "videos.md", "exec"), names)
    assert [(e.name, e.success) for e in names["found"]] == [
        ("one.npy", True),
        ("three_failed.npy", False),
        ("two.npy", True),
    ]
    assert names["found"][0].read().shape == (6, 3, 32, 32)
    assert names["watch"].speed()["frames"] == 5
    assert names["clips"]["observation", "image"].shape == (4, 3, 3, 32, 32)


def test_every_kind_is_named():
    from rftf_torchrl.data.readers.door import READERS

    table = PAGE[PAGE.index("| source | kind |") :]
    assert {kind for kind in READERS.names if f"| `{kind}` |" in table} == {
        "hdf5",
        "calvin",
        "demonstrations",
    }
