"""The flat list of public names: ``rftf_torchrl/__init__.pyi`` and what it promises."""

import ast
import importlib
import inspect
from functools import cache
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


@cache
def defined_in(module):
    """Names that a module defines itself, at its top level."""
    names = set()
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_public_names_come_from_the_modules_that_define_them():
    elsewhere = []
    for module, name, _ in NAMED:
        home = importlib.import_module(module)
        same = getattr(rftf_torchrl, name) is getattr(home, name)
        if not same or name not in defined_in(home):
            elsewhere.append((module, name))
    assert elsewhere == []


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


def is_there(before):
    """Whether a name of before is where it should be."""
    home = importlib.import_module(FROM_MODULES.get(before, "rftf_torchrl"))
    return hasattr(home, RENAMED.get(before, before.rpartition(".")[2]))


def test_names_of_before_the_rooms_are_still_there_and_removed_ones_are_not():
    assert {before for before in BEFORE if not is_there(before)} == set(REMOVED)


def test_every_exception_is_a_name_of_before():
    assert {*FROM_MODULES, *RENAMED, *REMOVED} <= set(BEFORE)


PACKAGES = ("modules", "objectives", "transforms", "configs", "envs", "envs.calvin", "data.calvin")


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_found_with_a_warning_where_they_were(package):
    find = vars(importlib.import_module(f"rftf_torchrl.{package}"))["__getattr__"]
    exceptions = (*FROM_MODULES, *RENAMED, *REMOVED)
    folders = [before.rpartition(".") for before in BEFORE if before not in exceptions]
    moved = [name for folder, _, name in folders if folder == package]
    assert moved
    for name in moved:
        message = f"rftf_torchrl.{package}.{name} is now imported by: from rftf"
        with pytest.warns(DeprecationWarning, match=message):
            assert find(name) is getattr(rftf_torchrl, name), name


def test_what_was_nowhere_is_nowhere():
    with pytest.raises(
        AttributeError, match=r"module 'rftf_torchrl\.modules' has no attribute 'x'"
    ):
        importlib.import_module("rftf_torchrl.modules").x  # noqa: B018
