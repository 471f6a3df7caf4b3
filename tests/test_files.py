import json
import os
import re
import tempfile
from dataclasses import dataclass

import pytest
import torch

from rftf_torchrl import prepare_output, whole_file, write_json, write_json_atomic, write_text
from rftf_torchrl.files import write_inside
from rftf_torchrl.weights_file import write_safetensors


def test_folder_is_made_and_left_empty(tmp_path):
    folder = prepare_output(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    assert prepare_output(str(folder)) == folder


def message(folder, error):
    return (
        f"Cannot write to the output folder {folder}: {os.strerror(error)}. Choose a folder that "
        "you may write to."
    )


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = tmp_path / "file" / "run"
    with pytest.raises(OSError, match=re.escape(message(folder, 20))):
        prepare_output(folder)


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=re.escape(message(tmp_path, 13))):
        prepare_output(tmp_path)


def test_json_reads_back(tmp_path):
    file = tmp_path / "result.json"
    write_json(file, {"old": 1})
    write_json(
        file, {"a": (1, 2.5), "b": {"c": [None, True, "d"]}, "nan": float("nan"), "inf": -1e999}
    )
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "a": [1, 2.5],
        "b": {"c": [None, True, "d"]},
        "nan": None,
        "inf": None,
    }
    assert list(tmp_path.iterdir()) == [file]


@dataclass
class Other:
    number: int = 1


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (
            {"a": [1, Other()]},
            "the object['a'][1] is a Other, which JSON cannot hold: turn it into numbers, strings "
            "or lists first.",
        ),
        ({"a": {1: 2}}, "the object['a'] has the key 1, expected strings as keys."),
    ],
)
def test_other_objects_leave_the_old_file(tmp_path, obj, expected):
    file = tmp_path / "result.json"
    write_json(file, [1])
    with pytest.raises(TypeError, match=re.escape(expected)):
        write_json(file, obj)
    assert json.loads(file.read_text(encoding="utf-8")) == [1]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json(file, [1])

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_json(file, [2])
    assert json.loads(file.read_text(encoding="utf-8")) == [1]
    assert list(tmp_path.iterdir()) == [file]


def test_the_first_name_of_write_json_stays():
    assert write_json_atomic is write_json


def test_text_is_utf8_with_its_own_line_ends(tmp_path):
    file = tmp_path / "note.txt"
    write_text(str(file), "Grüße\r\n→\n")
    assert file.read_bytes() == "Grüße\r\n→\n".encode()


def with_whole_file(path):
    with whole_file(path) as hidden:
        hidden.write_bytes(b"new")


WRITE = {
    "whole_file": with_whole_file,
    "write_text": lambda path: write_text(path, "new"),
    "write_json": lambda path: write_json(path, ["new"]),
    "write_safetensors": lambda path: write_safetensors(path, {"a": torch.zeros(1)}, {}),
}


@pytest.mark.parametrize("name", ["../a", "/a", "b/../../a", "C:\\a", "..\\a"])
def test_data_names_no_file_outside_of_its_folder(tmp_path, name):
    folder = prepare_output(tmp_path / "folder")
    with pytest.raises(ValueError, match=re.escape(repr(name)) + ": expected names of files"):
        write_inside(folder, {"good": b"", name: b"content"})
    assert list(tmp_path.rglob("*")) == [folder]
    write_inside(folder, {"b/a.txt": b"content"})
    assert (folder / "b" / "a.txt").read_bytes() == b"content"


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_who_may_read(tmp_path, name, umask, mode):
    file = tmp_path / "file.txt"
    before = os.umask(umask)
    try:
        WRITE[name](file)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", WRITE)
def test_a_missing_folder_is_named(tmp_path, name):
    file = tmp_path / "no folder" / "file.txt"
    expected = f"Cannot write {file}: {os.strerror(2)}. Choose a folder that you may write to."
    with pytest.raises(OSError, match=f"^{re.escape(expected)}$"):
        WRITE[name](file)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "file.txt"
    write_text(file, "old")

    def full(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    expected = f"Cannot write {file}: {os.strerror(28)}. Make room on the disk."
    with pytest.raises(OSError, match=f"^{re.escape(expected)}$"):
        write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_hidden_file_is_beside_the_target_with_its_suffix(tmp_path):
    with whole_file(tmp_path / "film.mp4") as first, whole_file(tmp_path / "film.mp4") as second:
        assert first.parent == tmp_path
        assert first.name.startswith(".film.")
        assert first.suffix == ".mp4"
        assert first != second
