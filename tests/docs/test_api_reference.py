"""Every public name has its place in the reference, and the reference names nothing else."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import rftf_torchrl

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "api"


def public_packages():
    """Packages with an ``__all__`` that are not private, as ``"envs.metaworld"``."""
    found = pkgutil.walk_packages(rftf_torchrl.__path__, prefix="rftf_torchrl.")
    names = [module.name for module in found if module.ispkg and "._" not in module.name]
    return [name.removeprefix("rftf_torchrl.") for name in names]


def documented(page):
    """(package, name) of every entry of a page."""
    text = page.read_text()
    package = re.search(r"^\.\. currentmodule:: rftf_torchrl\.(.+)$", text, re.MULTILINE)[1]
    blocks = re.findall(r"\.\. autosummary::\n   :toctree: generated\n\n((?: {3}\w+\n?)+)", text)
    names = [name for block in blocks for name in block.split()]
    return [(package, name) for name in names + re.findall(r"\.\. py:data:: (\w+)", text)]


ENTRIES = [
    entry
    for page in sorted(PAGES.glob("*.rst"))
    if page.stem != "index"
    for entry in documented(page)
]


@pytest.mark.parametrize("package", public_packages())
def test_every_public_name_is_documented(package):
    module = importlib.import_module(f"rftf_torchrl.{package}")
    here = {name for where, name in ENTRIES if where == package}
    elsewhere = [
        getattr(importlib.import_module(f"rftf_torchrl.{where}"), name)
        for where, name in ENTRIES
        if where != package
    ]
    missing = [
        name
        for name in module.__all__
        if name not in here and not any(getattr(module, name) is entry for entry in elsewhere)
    ]
    assert missing == []


def test_every_entry_is_public_and_there_once():
    strange = [
        (where, name)
        for where, name in ENTRIES
        if name not in importlib.import_module(f"rftf_torchrl.{where}").__all__
    ]
    assert strange == []
    assert len(ENTRIES) == len(set(ENTRIES)) > 100


def test_every_public_name_has_a_docstring():
    constants = {"TASKS", "SAME_SCENE", "FORMAT_VERSION"}
    bare = [
        (where, name)
        for where, name in ENTRIES
        if name not in constants
        and not getattr(importlib.import_module(f"rftf_torchrl.{where}"), name).__doc__
    ]
    assert bare == []


def test_the_index_lists_every_page():
    index = (PAGES / "index.rst").read_text()
    pages = {page.stem for page in PAGES.glob("*.rst")} - {"index"}
    assert set(re.findall(r"^ {3}([a-z_]+)$", index, re.MULTILINE)) == pages
