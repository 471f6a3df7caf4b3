"""Parts are found by name, by place and by entry point; what can't be found is explained."""

import re
from importlib.metadata import EntryPoint

import pytest

from rftf_torchrl import registry
from rftf_torchrl.registry import Registry

SHAPES = Registry("shape", "example.shapes", {"path": "pathlib:Path"}, ("exists", "is_dir"))


def test_by_name_by_place_and_by_entry_point(monkeypatch):
    from pathlib import Path, PosixPath

    entry = EntryPoint("posix", "pathlib:PosixPath", "example.shapes")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert SHAPES.find("path") is Path
    assert SHAPES.find("pathlib:Path") is Path
    assert SHAPES.find("posix") is PosixPath


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "pth",
            "unknown shape 'pth': choose from path, give your own as 'module:Name', or offer it as "
            "an entry point in the group 'example.shapes'. Did you mean 'path'?",
        ),
        (
            "no_such_module:Path",
            "no shape at no_such_module:Path (No module named 'no_such_module'): make it "
            "importable, for example by its folder in PYTHONPATH.",
        ),
        (
            "pathlib:Pth",
            "no shape at pathlib:Pth (module 'pathlib' has no attribute 'Pth'): make it "
            "importable, for example by its folder in PYTHONPATH.",
        ),
        (
            "./my_shapes.py:Path",
            "./my_shapes.py:Path names a file: give the module's name, such as my_shapes:Path, and "
            "its folder in PYTHONPATH.",
        ),
        ("pathlib:PurePath", "pathlib:PurePath is no shape: it lacks exists, is_dir."),
    ],
)
def test_what_is_wrong_is_said(kind, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SHAPES.find(kind)
