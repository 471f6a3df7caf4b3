"""The flat list of public names: ``rftf_torchrl/__init__.pyi`` and what it promises."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import rftf_torchrl

HERE = Path(__file__).parent
STUB = Path(rftf_torchrl.__file__).with_suffix(".pyi")
NAMED = [
    (f"rftf_torchrl.{node.module}", alias.name, alias.asname)
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
]
BEFORE = (HERE / "public_names_before.txt").read_text(encoding="utf-8").split()
# Two simulators have tasks: these names are imported from their modules.
FROM_MODULES = {
    "data.Episode": "rftf_torchrl.data.format",
    "data.Task": "rftf_torchrl.data.format",
    "envs.calvin.TASKS": "rftf_torchrl.calvin.tasks",
    "envs.calvin.get_task": "rftf_torchrl.calvin.tasks",
    "envs.metaworld.TASKS": "rftf_torchrl.metaworld.tasks",
    "envs.metaworld.Task": "rftf_torchrl.metaworld.tasks",
    "envs.metaworld.get_task": "rftf_torchrl.metaworld.tasks",
}
# Old name -> what to use now.
RENAMED: dict[str, str] = {}
# Old name -> why it has gone.
REMOVED: dict[str, str] = {
    "modules.ResidualCritic": "the studies found it worse than a learned critic",
    "modules.residual_critic": "the studies found it worse than a learned critic",
    "data.calvin.write_synthetic_calvin": "it wrote data for tests alone",
    "envs.calvin.expert.walk_chain": "record_chain walks, and evaluate_chains plays a controller",
    "envs.calvin.expert.feasible": "nothing asked it: the expert tries, and the oracle judges",
    "envs.calvin.collect_states": "record_chains gives the states in which tasks begin",
}


def defined_in(module):
    """Names that a module defines itself, at its top level."""
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, name, _ in NAMED])
def test_a_public_name_comes_from_the_module_that_defines_it(module, name):
    home = importlib.import_module(module)
    assert getattr(rftf_torchrl, name) is getattr(home, name)
    assert name in set(defined_in(home))


def test_the_list_changes_only_together_with_its_copy():
    """Whoever changes the public names shows it in ``tests/public_names.txt``."""
    names = sorted(name for _, name, _ in NAMED)
    assert names == (HERE / "public_names.txt").read_text(encoding="utf-8").splitlines()
    assert names == sorted(set(names))


def test_names_are_imported_as_they_are_and_have_no_underscore_in_front():
    assert [name for _, name, alias in NAMED if alias != name or name.startswith("_")] == []


def test_the_package_exports_the_list():
    assert set(rftf_torchrl.__all__) == {name for _, name, _ in NAMED}


def test_every_public_class_and_function_has_a_docstring():
    objects = {name: getattr(rftf_torchrl, name) for _, name, _ in NAMED}
    bare = [
        name
        for name, thing in objects.items()
        if inspect.isclass(thing) or inspect.isroutine(thing)
        if not thing.__doc__ or thing.__doc__.startswith(f"{name}(")  # a dataclass makes this up
    ]
    assert bare == []


@pytest.mark.parametrize("before", BEFORE)
def test_a_name_of_before_the_rooms_is_still_there(before):
    if before in REMOVED:
        assert not hasattr(rftf_torchrl, before.rpartition(".")[2]), REMOVED[before]
    elif before in FROM_MODULES:
        home = importlib.import_module(FROM_MODULES[before])
        assert hasattr(home, before.rpartition(".")[2])
    else:
        assert hasattr(rftf_torchrl, RENAMED.get(before, before.rpartition(".")[2]))


def test_every_exception_is_a_name_of_before():
    assert {*FROM_MODULES, *RENAMED, *REMOVED} <= set(BEFORE)


PACKAGES = ("modules", "objectives", "transforms", "configs", "envs", "envs.calvin", "data.calvin")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        (f"rftf_torchrl.{package}", name)
        for package, _, name in (before.rpartition(".") for before in BEFORE)
        if package in PACKAGES and f"{package}.{name}" not in (*FROM_MODULES, *RENAMED, *REMOVED)
    ],
)
def test_names_are_found_with_a_warning_where_they_were(package, name):
    find = vars(importlib.import_module(package))["__getattr__"]
    with pytest.warns(DeprecationWarning, match=f"{package}.{name} is now imported by: from rftf"):
        assert find(name) is getattr(rftf_torchrl, name)


def test_what_was_nowhere_is_nowhere():
    with pytest.raises(
        AttributeError, match=r"module 'rftf_torchrl\.modules' has no attribute 'x'"
    ):
        importlib.import_module("rftf_torchrl.modules").x  # noqa: B018
