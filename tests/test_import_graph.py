"""Imports point one way: functional <- modules and the like <- envs and the like <- recipes."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rftf_torchrl"
LAYERS = (
    {"keys"},
    {"functional"},
    {"modules", "objectives", "transforms", "samplers"},
    {"envs", "data", "evaluation"},
    {"training", "configs"},
    {"recipes"},
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def imported_names(file):
    """Everything that a file imports, anywhere in it, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_parts(file):
    """The parts of ``rftf_torchrl`` that a file imports."""
    dotted = (name.split(".") for name in imported_names(file))
    return {name[1] for name in dotted if name[0] == "rftf_torchrl" and len(name) > 1}


def edges():
    """Part of the package -> (file, part that it imports)."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part != "__init__":
            found.setdefault(part, []).extend((file, other) for other in imported_parts(file))
    for file in sorted((ROOT / "recipes").glob("*.py")):
        found.setdefault("recipes", []).extend((file, other) for other in imported_parts(file))
    return found


def test_every_part_has_a_layer():
    assert set(edges()) == set(LAYER)


@pytest.mark.parametrize("part", sorted(LAYER))
def test_no_import_points_up(part):
    upward = [
        f"{file.relative_to(ROOT)} imports {other}"
        for file, other in edges()[part]
        if LAYER[other] > LAYER[part]
    ]
    assert upward == []


def test_no_circle():
    graph = {
        part: {other for _, other in imports if other != part} for part, imports in edges().items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_functional_is_tensor_maths_alone():
    names = {
        name for file in (PACKAGE / "functional").glob("*.py") for name in imported_names(file)
    }
    other = {name for name in names if name.startswith(("tensordict", "torchrl", "torch.nn", "os"))}
    assert {name for name in other if not name.startswith("torch.nn.functional")} == set()
