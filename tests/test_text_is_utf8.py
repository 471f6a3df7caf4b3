"""Text files are read and written in UTF-8 by name, whatever the platform's encoding is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file
    for folder in ("rftf_torchrl", "recipes", "tests", "docs")
    for file in (ROOT / folder).rglob("*.py")
    if "_build" not in file.parts
)
# Modules and classes whose ``open`` is not that of text files.
OTHERS = {"Image", "av", "os", "tarfile", "webbrowser", "zipfile", "archive"}


def in_the_platforms_encoding(call):
    """Whether a call opens, reads or writes text without saying in which encoding."""
    names = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in names:
        return False
    if isinstance(call.func, ast.Attribute):
        name, owner = call.func.attr, ast.unparse(call.func.value)
    else:
        name, owner = getattr(call.func, "id", ""), None
    if name in ("read_text", "write_text"):
        return owner is not None  # a bare write_text is ours, which writes UTF-8
    if name in ("run", "Popen", "check_output") and owner == "subprocess":
        return "text" in names or "universal_newlines" in names
    if name not in ("open", "fdopen") or (name == "open" and owner in OTHERS):
        return False
    modes = call.args[1:2] if owner in (None, "os") else call.args[:1]
    modes += [names["mode"]] if "mode" in names else []
    return not any(isinstance(mode, ast.Constant) and "b" in mode.value for mode in modes)


def bare_calls(tree):
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and in_the_platforms_encoding(node)
    ]


def test_text_has_an_encoding():
    found = {
        str(file.relative_to(ROOT)): lines
        for file in FILES
        if (lines := bare_calls(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "open(path)",
        "open(path, 'a')",
        "path.open()",
        "path.open('w', newline='')",
        "path.read_text()",
        "path.write_text('a')",
        "subprocess.run(command, text=True)",
        "os.fdopen(number, 'w')",
    ],
)
def test_the_check_finds(line):
    assert bare_calls(ast.parse(line)) == [1]


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'rb')",
        "path.open(mode='wb')",
        "path.read_text(encoding='utf-8')",
        "write_text(path, 'a')",
        "zipfile.open(name)",
        "os.open(path, 0)",
        "subprocess.run(command)",
    ],
)
def test_the_check_passes(line):
    assert bare_calls(ast.parse(line)) == []
