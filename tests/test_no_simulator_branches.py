"""Nothing outside a simulator's own package asks for the simulator by its name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = {"metaworld", "calvin", "libero", "gym"}
OWN = {"rftf_torchrl/metaworld", "rftf_torchrl/calvin", "rftf_torchrl/libero"}


def files():
    for file in sorted([*ROOT.glob("rftf_torchrl/**/*.py"), *ROOT.glob("recipes/*.py")]):
        path = file.relative_to(ROOT).as_posix()
        if not path.startswith("rftf_torchrl/recipes/") and not any(
            path.startswith(f"{own}/") for own in OWN
        ):
            yield path, ast.parse(file.read_text(encoding="utf-8"))


def compared(tree):
    """The strings that a file compares something with, or matches it against."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Compare, ast.MatchValue)):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant):
                    yield part.value


def test_no_branch_on_a_simulators_name():
    found = {path: NAMES & set(compared(tree)) for path, tree in files()}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_import_of_a_simulators_package():
    found = []
    for path, tree in files():
        for node in ast.walk(tree):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            if module and module.startswith(tuple(own.replace("/", ".") for own in OWN)):
                found.append(f"{path} imports {module}")
    assert found == []


@pytest.mark.parametrize("text", ["if kind == 'calvin': pass", "found = x in ('gym', 'other')"])
def test_a_branch_is_seen(text):
    assert NAMES & set(compared(ast.parse(text)))
