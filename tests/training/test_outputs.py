import json
import os
import re
import tempfile
from dataclasses import dataclass

import pytest

from rftf_torchrl import prepare_output, write_json_atomic


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
    (tmp_path / "file").write_text("")
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
    write_json_atomic(file, {"old": 1})
    write_json_atomic(
        file, {"a": (1, 2.5), "b": {"c": [None, True, "d"]}, "nan": float("nan"), "inf": -1e999}
    )
    assert json.loads(file.read_text()) == {
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
    write_json_atomic(file, [1])
    with pytest.raises(TypeError, match=re.escape(expected)):
        write_json_atomic(file, obj)
    assert json.loads(file.read_text()) == [1]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json_atomic(file, [1])

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_json_atomic(file, [2])
    assert json.loads(file.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [file]
