"""Imports point one way: from the recipes down to the keys, and simulators only by their names."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rftf_torchrl"
LAYERS = (
    "keys cores errors digests files former leftovers modules new_folder optional registry "
    "rows_file settings weights_file",
    "functional",
    "nets",
    "policies values transforms",
    "rewards objectives samplers",
    "data envs",
    "evaluation",
    "training",
    "configs",
    "study",
    "metaworld calvin libero paper_policies",
    "recipes cli",
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts.split()}
# Found by name through a registry; only recipes may import them.
PLUGINS = {"metaworld", "calvin", "libero", "paper_policies"}


def python_files():
    """Every file once: the package's folder ``recipes`` is a link, which not every glob follows."""
    own = [file for file in PACKAGE.rglob("*.py") if part_of(file) != "recipes"]
    return sorted(own) + sorted((PACKAGE / "recipes").rglob("*.py"))


def part_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported_names(file):
    """Everything that a file imports, anywhere in it, as dotted names."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own_imports(file):
    """What a file imports from ``rftf_torchrl``, as lists of the names after it."""
    dotted = (name.split(".") for name in imported_names(file))
    return [name[1:] for name in dotted if name[0] == "rftf_torchrl" and len(name) > 1]


def imported_file(names):
    """The file that an import loads last, or None."""
    for length in range(len(names), 0, -1):
        place = PACKAGE.joinpath(*names[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.exists():
                return file
    return None


FILES = python_files()


@pytest.fixture(scope="module")
def arrows():
    """(file, its part, the part that it imports); recipes take public names from the package."""
    return {
        (file.relative_to(PACKAGE).as_posix(), part_of(file), names[0])
        for file in FILES
        if file != PACKAGE / "__init__.py"
        for names in own_imports(file)
        if names[0] != part_of(file) and not (part_of(file) == "recipes" and len(names) == 1)
    }


def test_every_part_has_a_layer():
    assert {part_of(file) for file in FILES} - {"__init__"} <= set(LAYER)


def test_the_design_page_has_the_line_of_layers():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    line = page[page.index("```text\nkeys") :].split("```")[1].removeprefix("text")
    parts = {part_of(file) for file in FILES}
    here = [[part for part in layer.split() if part in parts] for layer in LAYERS]
    assert [layer.replace(",", " ").split() for layer in line.split("|")] == here


def test_every_file_is_read_once():
    resolved = {file.resolve() for file in FILES}
    assert len(FILES) == len(resolved)
    assert (PACKAGE / "recipes" / "finetune.py").resolve() in resolved
    assert PACKAGE / "policies" / "lerobot" / "spec.py" in resolved


def test_the_library_imports_from_the_defining_module(arrows):
    flat = {(file, name) for file, _, name in arrows if name not in LAYER}
    assert flat == set()


def test_no_import_points_up(arrows):
    upward = {
        (file, other)
        for file, importer, other in arrows
        if LAYER.get(other, 0) > LAYER.get(importer, 0)
    }
    assert upward == set()


def test_only_recipes_import_what_stands_apart(arrows):
    importers = {
        (file, other)
        for file, importer, other in arrows
        if other in PLUGINS and importer not in ("recipes", "cli")
    }
    assert importers == set()


def test_no_circle_of_parts(arrows):
    graph = {part: set() for part in LAYER}
    for _, part, other in arrows:
        if other in LAYER:
            graph[part].add(other)
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_no_circle_of_files():
    graph = {}
    for file in FILES:
        others = {imported_file(names) for names in own_imports(file)}
        graph[file] = others - {None, file, PACKAGE / "__init__.py"}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_functional_is_tensor_maths_alone():
    allowed = (
        *("torch.Tensor", "torch.nn.functional.", "rftf_torchrl.functional."),
        "rftf_torchrl.former.",
    )
    standard = {"__future__", "collections", "math", "statistics", "typing"}
    other = {
        name
        for file in (PACKAGE / "functional").glob("*.py")
        for name in imported_names(file)
        if name != "torch" and not name.startswith(allowed) and name.split(".")[0] not in standard
    }
    assert other == set()
