"""Every optional package is imported by ``rftf_torchrl.optional``, which names the extra."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rftf_torchrl
from rftf_torchrl import MetaWorldEnv, ScriptedExpert
from rftf_torchrl.calvin.expert.view import rotation_class
from rftf_torchrl.envs.ray_actors import RayActors
from rftf_torchrl.envs.renderer import FastRenderer
from rftf_torchrl.metaworld.tasks import get_task

pytestmark = pytest.mark.slow

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(rftf_torchrl.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    extra: {canonicalize_name(Requirement(line).name) for line in lines}
    for extra, lines in PROJECT["optional-dependencies"].items()
}
FILES = sorted(PACKAGE.rglob("*.py"))
# CALVIN's simulator is on GitHub only: CalvinNotInstalledError says how to get it.
FROM_GITHUB = {"calvin_env", "pybullet"}
# Packages that an optional package brings along.
BROUGHT_ALONG = {
    "huggingface_hub": "lerobot",
    "tokenizers": "transformers",
    "gymnasium": "metaworld",
}


def installed_with(*lines):
    """The distributions that these requirements bring, theirs included."""
    found, waiting = set(), list(lines)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in found or not wanted:
            continue
        try:
            waiting += requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
    return found


def top_level_packages():
    """What can be imported without an extra, and what only an extra brings."""
    always = installed_with(*PROJECT["dependencies"]) | {canonicalize_name(PROJECT["name"])}
    ours, optional = set(), set()
    for package, distributions in packages_distributions().items():
        needed = always & {canonicalize_name(name) for name in distributions}
        (ours if needed else optional).add(package)
    return ours, optional


def statements(tree):
    """The import statements that run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        yield from statements(node)


def imported(source):
    """Top-level packages that a module imports by a statement."""
    for node in statements(ast.parse(source)):
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "rftf_torchrl"]
        yield from (name.partition(".")[0] for name in names)


def test_statements_import_what_is_always_there():
    allowed = set(sys.stdlib_module_names) | top_level_packages()[0] | FROM_GITHUB
    found = {
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in FILES
        for name in set(imported(file.read_text(encoding="utf-8"))) - allowed
    }
    assert not found, "use rftf_torchrl.optional, which names the extra"


def test_the_rule_finds_an_import():
    source = "def f():\n    from scipy import stats\nif TYPE_CHECKING:\n    import peft\n"
    assert list(imported(source)) == ["scipy"]


def asked_for():
    """(file, package, extra) of every call of ``optional_module``."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "optional_module":
                module, extra = node.args[:2]
                if isinstance(module, ast.JoinedStr):
                    module = module.values[0]
                if isinstance(module, ast.Constant) and isinstance(extra, ast.Constant):
                    yield file.name, module.value.partition(".")[0], extra.value


def test_the_extra_installs_the_package():
    asked = set(asked_for())
    assert {package for _, package, _ in asked} >= {"transformers", "pyarrow", "scipy"}
    without = {
        (file, package, extra)
        for file, package, extra in asked
        if not EXTRAS[extra]
        & {canonicalize_name(name) for name in (package, BROUGHT_ALONG.get(package, package))}
    }
    assert without == set()


# LeRobot imports it, to have its type of reward model registered.
LEROBOT_PLUGIN = "rftf_torchrl.values.lerobot_plugin.reward_model"
WITHOUT = """
import importlib, pkgutil, sys

sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
import rftf_torchrl
for module in pkgutil.walk_packages(rftf_torchrl.__path__, "rftf_torchrl."):
    if module.name not in sys.argv[2:]:
        importlib.import_module(module.name)
for name in rftf_torchrl.__all__:
    getattr(rftf_torchrl, name)
"""


def test_everything_is_importable_without_an_extra():
    absent = sorted(top_level_packages()[1] | FROM_GITHUB)
    assert {"scipy", "transformers", "metaworld"} <= set(absent)
    command = [sys.executable, "-c", WITHOUT, ",".join(absent), LEROBOT_PLUGIN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, encoding="utf-8")
    assert done.returncode == 0, done.stderr


USES = {
    "scipy": (rotation_class, "CALVIN's expert", "calvin"),
    "metaworld": (
        lambda: MetaWorldEnv("drawer-open", image_size=None), "Meta-World", "metaworld"
    ),
    "mujoco": (lambda: FastRenderer(None, 8, "corner2"), "Meta-World", "metaworld"),
    "lerobot": (lambda: import_module(LEROBOT_PLUGIN), "A reward model of LeRobot", "lerobot"),
    "ray": (lambda: RayActors(None, 1, 0), "collector.engine=ray", "ray"),
    "packaging": (lambda: ScriptedExpert(get_task("reach")), "Meta-World", "metaworld"),
}  # fmt: skip


@pytest.mark.parametrize("package", sorted(USES))
def test_the_error_names_the_extra(package, monkeypatch):
    use, what, extra = USES[package]
    monkeypatch.setitem(sys.modules, package, None)
    message = f"{what} needs the package {package}: pip install 'rftf-torchrl[{extra}]'"
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(message)}$"):
        use()
