"""What counts as a code line, and each file once."""

import shutil
import subprocess

import pytest
from count_code_lines import area_of, code_lines, count, table

SOURCE = '''"""A docstring
of two lines."""

# A comment.
import os  # code, with a comment


class Thing:
    """A docstring."""

    text = """a string

    of three lines"""


def one_line(): "a docstring beside code"


async def call(a,
               # a comment among the arguments
               b):
    r"""A raw
    docstring."""
    return (
        a,

        b,
    )
'''


def test_blank_lines_comments_and_docstrings_do_not_count():
    assert code_lines(SOURCE) == 1 + 1 + 3 + 1 + 2 + 4


def test_a_file_without_code_has_no_line():
    assert code_lines("") == code_lines('"""Only a docstring."""\n\n# and this\n') == 0


@pytest.mark.parametrize(
    ("path", "area"),
    [
        ("rftf_torchrl/calvin/env.py", "calvin"),
        ("rftf_torchrl/metaworld/goals.py", "metaworld"),
        ("rftf_torchrl/paper_policies/seer/model.py", "paper policies"),
        ("rftf_torchrl/policies/lerobot/load.py", "pretrained VLAs"),
        ("rftf_torchrl/policies/lerobot.py", "pretrained VLAs"),
        ("rftf_torchrl/values/pretrained/towers.py", "pretrained VLAs"),
        ("rftf_torchrl/policies/small.py", "core"),
        ("rftf_torchrl/calvinist.py", "core"),
        ("rftf_torchrl/__init__.pyi", "core"),
        ("recipes/calvin.py", "recipes"),
        ("setup.py", "other"),
    ],
)
def test_a_path_has_one_area(path, area):
    assert area_of(path) == area


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_tracked_files_count_once(tmp_path):
    for name in ("rftf_torchrl/a.py", "rftf_torchrl/b.pyi", "recipes/c.py", "tests/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(SOURCE, encoding="utf-8")
    (tmp_path / "rftf_torchrl/recipes").symlink_to("../recipes")
    (tmp_path / "rftf_torchrl/link.py").symlink_to("a.py")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    (tmp_path / "rftf_torchrl/untracked.py").write_text(SOURCE, encoding="utf-8")

    counts = count(tmp_path)

    assert counts == {"recipes": (1, 12), "core": (2, 24)}
    assert table(counts).splitlines() == [
        "| area | files | code lines |",
        "|---|---:|---:|",
        "| recipes | 1 | 12 |",
        "| core | 2 | 24 |",
        "| total | 3 | 36 |",
    ]
