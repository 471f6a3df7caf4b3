"""What killed writes left is found, named and removed; what is being written stays."""

import logging
import os
import subprocess
import sys
import tempfile

import pytest

from rftf_torchrl import own_folder, whole_file
from rftf_torchrl.leftovers import clear_beside, clear_leftovers, temporary_folder
from rftf_torchrl.new_folder import NewFolder

HOLD = """
import sys, time
from pathlib import Path
from rftf_torchrl import whole_file
from rftf_torchrl.leftovers import temporary_folder
from rftf_torchrl.new_folder import NewFolder
place = Path(sys.argv[1])
data = NewFolder(place / "deep" / "data", "data")
(data.hidden / "frames").write_bytes(bytes(2**20))
with whole_file(place / "policy.safetensors") as hidden, temporary_folder() as unpacked:
    hidden.write_bytes(b"half")
    (unpacked / "tensor").write_bytes(b"unpacked")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary folder of this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def writer(tmp_path, temporary):
    (tmp_path / "run").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def hidden(folder):
    return sorted(file.name for file in folder.rglob(".*") if file.suffix != ".lock")


def test_what_is_being_written_stays_and_what_was_killed_goes(tmp_path, temporary, writer, caplog):
    run = tmp_path / "run"
    assert clear_leftovers(run) == []
    assert len(hidden(run)) == 3  # with the mark of the folder
    assert len(list(temporary.iterdir())) == 1
    writer.kill()
    writer.wait()
    with caplog.at_level(logging.INFO), own_folder(run):
        assert hidden(run) == [".run.json"]
    assert list(temporary.iterdir()) == []
    (line,) = [r.getMessage() for r in caplog.records if "removed" in r.getMessage()]
    assert line.startswith(f"{run}: removed what killed writes left, 1.0 MiB: .policy.")
    assert ".data.partial-" in line
    assert ".rftf_torchrl.partial-" in line


@pytest.mark.parametrize(
    "name",
    [
        ".policy.0123abcd.tmp.safetensors",
        ".notes.0123abcd.tmp",
        ".demos.partial-0123abcd",
        f".checkpoint-000000000003.torchrl.stage-{'0' * 32}",
        f".checkpoint-000000000003.torchrl.delete-{'0' * 32}",
    ],
)
def test_leftovers_of_earlier_versions_go(tmp_path, temporary, name):
    (tmp_path / "run" / "part" / name / "frames").mkdir(parents=True)
    (tmp_path / "run" / name).write_bytes(b"half")
    assert {file.name for file in clear_leftovers(tmp_path / "run")} == {name}
    assert list((tmp_path / "run").rglob("*")) == [tmp_path / "run" / "part"]


def test_leftovers_of_a_name_with_brackets_go(tmp_path):
    place = tmp_path / "d[1]"
    left = tmp_path / ".d[1].partial-0123abcd"
    left.mkdir()
    assert clear_beside(place) == [left]
    assert not left.exists()


@pytest.mark.parametrize(
    "name", [".git", "policy.0123abcd.tmp", ".hidden", ".demos.partial-x", "a.damaged", ".run.lock"]
)
def test_everything_else_stays(tmp_path, temporary, name):
    (tmp_path / name).mkdir()
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / name).touch()
    assert clear_leftovers(tmp_path) == []


def test_a_finished_folder_is_not_searched(tmp_path, temporary):
    folder = NewFolder(tmp_path / "data", "data")
    (folder.hidden / ".notes.0123abcd.tmp").touch()
    folder.publish()
    assert clear_leftovers(tmp_path) == []


def test_an_empty_folder_without_a_mark_goes(tmp_path, temporary):
    (tmp_path / ".demos.partial-0123abcd").mkdir()
    assert len(clear_leftovers(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == [temporary]


def test_the_next_writer_of_a_folder_removes_what_was_left_of_it(tmp_path):
    for name in (".data.partial-0123abcd", ".other.partial-0123abcd"):
        (tmp_path / name / "whole").mkdir(parents=True)
    with_own_mark = NewFolder(tmp_path / "data", "data")
    assert sorted(file.name for file in tmp_path.glob(".data.*")) != [".data.partial-0123abcd"]
    assert not (tmp_path / ".data.partial-0123abcd").exists()
    assert (tmp_path / ".other.partial-0123abcd").exists()
    with_own_mark.discard()


def test_a_temporary_folder_is_private(temporary):
    with temporary_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_a_file_that_is_written_here_stays(tmp_path, temporary):
    with whole_file(tmp_path / "file.txt") as hidden_file:
        hidden_file.write_text("one", encoding="utf-8")
        assert clear_leftovers(tmp_path) == []
        hidden_file.write_text("two", encoding="utf-8")
    assert (tmp_path / "file.txt").read_text(encoding="utf-8") == "two"
