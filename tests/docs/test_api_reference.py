"""Every public name has its place in the reference, and the reference names nothing else."""

import importlib
import inspect
import re
from pathlib import Path

import rftf_torchrl

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "api"
# Two simulators have tasks, and so has the index of demonstrations: imported from their modules.
FROM_MODULES = {
    "rftf_torchrl.calvin.tasks": {"TASKS", "get_task"},
    "rftf_torchrl.data.format": {"Episode"},
    "rftf_torchrl.metaworld.tasks": {"TASKS", "get_task"},
}
BLOCK = re.compile(r"\.\. autosummary::\n   :toctree: generated\n\n((?: {3}\w+\n?)+)")
CONSTANT = re.compile(r"\.\. py:data:: (\w+)\n   :type: .+\n\n   \w.*")


def documented(page, entry):
    """(module, name) of every entry of a page that a pattern finds."""
    _, *parts = re.split(
        r"^\.\. currentmodule:: (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    for module, text in zip(parts[::2], parts[1::2], strict=True):
        yield from ((module, name) for found in entry.findall(text) for name in found.split())


RST = [page for page in sorted(PAGES.glob("*.rst")) if page.stem != "index"]
OBJECTS = [entry for page in RST for entry in documented(page, BLOCK)]
CONSTANTS = [entry for page in RST for entry in documented(page, CONSTANT)]


def test_every_public_name_has_exactly_one_entry_and_nothing_else_has():
    public = [("rftf_torchrl", name) for name in rftf_torchrl.__all__]
    from_modules = [(module, name) for module, names in FROM_MODULES.items() for name in names]
    assert sorted(OBJECTS + CONSTANTS) == sorted(public + from_modules)


def object_of(entry):
    module, name = entry
    return getattr(importlib.import_module(module), name)


def is_documented_by_itself(entry):
    thing = object_of(entry)
    return inspect.isclass(thing) or inspect.isroutine(thing)


def test_classes_and_functions_have_docstrings_and_constants_a_sentence():
    assert [e for e in OBJECTS if not is_documented_by_itself(e) or not object_of(e).__doc__] == []
    assert [e for e in CONSTANTS if is_documented_by_itself(e)] == []


def test_the_index_lists_every_page():
    index = (PAGES / "index.rst").read_text(encoding="utf-8")
    pages = {page.stem for page in RST}
    assert set(re.findall(r"^ {3}([a-z_]+)$", index, re.MULTILINE)) == pages
