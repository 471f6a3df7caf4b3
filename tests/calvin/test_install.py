"""What is missing is said in full, and nothing is imported before it is needed."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from rftf_torchrl import CalvinNotInstalledError, require_calvin_env

HELP = (
    "calvin_env is not on PyPI. Clone it and install the clone in place:\n"
    "    git clone https://github.com/mees/calvin_env\n"
    "    pip install -e calvin_env"
)
OLD_PYTHON = (
    " PyBullet, which it runs on, has wheels for Python 3.10 and 3.11 only, and this is Python "
    "3.13: make an environment with one of those first."
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A folder that looks like calvin_env's clone, or like nothing at all."""

    def install(*folders, imports=None):
        package = tmp_path / "calvin_env"
        for folder in ("calvin_env", *folders):
            (package / folder).mkdir(parents=True)
        origin = package / "calvin_env" / "__init__.py"
        spec = ModuleSpec("calvin_env", None, origin=str(origin))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)

        def import_module(name):
            if imports:
                raise ModuleNotFoundError(f"No module named {imports!r}", name=imports)

        monkeypatch.setattr(importlib, "import_module", import_module)
        return package

    return install


FOLDERS = ("conf/scene", "conf/robot", "conf/cameras", "data/calvin_table_D")


@pytest.mark.parametrize(("version", "hint"), [((3, 11), ""), ((3, 10), ""), ((3, 13), OLD_PYTHON)])
def test_nothing_is_installed(monkeypatch, version, hint):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "version_info", version)
    message = f"CALVIN's simulator is not installed.{hint} {HELP}"
    with pytest.raises(CalvinNotInstalledError, match=f"^{re.escape(message)}$"):
        require_calvin_env()


def test_a_clone_beside_the_script_is_no_package(monkeypatch, tmp_path):
    """Python takes such a folder for a package without a file, and the installed one is hidden."""
    (tmp_path / "calvin_env").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "calvin_env", raising=False)
    message = f"The folder {tmp_path / 'calvin_env'} would hide it: start Python elsewhere."
    with pytest.raises(CalvinNotInstalledError, match=re.escape(message)):
        require_calvin_env()


@pytest.mark.parametrize("missing", FOLDERS)
def test_installed_without_its_folders(install, missing):
    install(".git", *(folder for folder in FOLDERS if folder != missing))
    message = (
        f"calvin_env was found, but not its folder {missing!r} beside the package: it works only "
        f"from a clone installed with -e. {HELP}"
    )
    with pytest.raises(CalvinNotInstalledError, match=f"^{re.escape(message)}$"):
        require_calvin_env()


def test_unpacked_rather_than_cloned(install):
    install(*FOLDERS)
    message = (
        "calvin_env was found outside of any git repository, and it asks git for its own commit "
        f"when it starts. {HELP}"
    )
    with pytest.raises(CalvinNotInstalledError, match=f"^{re.escape(message)}$"):
        require_calvin_env()


@pytest.mark.parametrize(
    ("module", "package", "version", "hint"),
    [
        ("quaternion", "quaternion", (3, 11), ""),
        ("pybullet_utils", "pybullet", (3, 11), ""),
        ("pybullet", "pybullet", (3, 13), OLD_PYTHON),
        ("cv2", "cv2", (3, 13), ""),
    ],
)
def test_a_dependency_is_missing(install, monkeypatch, module, package, version, hint):
    install(".git", *FOLDERS, imports=module)
    monkeypatch.setattr(sys, "version_info", version)
    message = (
        f"calvin_env was found, but the package {package!r} that it needs was not.{hint} Install "
        "what calvin_env asks for: pip install -e calvin_env"
    )
    with pytest.raises(CalvinNotInstalledError, match=f"^{re.escape(message)}$"):
        require_calvin_env()


def test_the_error_is_an_import_error():
    assert issubclass(CalvinNotInstalledError, ImportError)


def test_importing_the_environments_imports_no_simulator():
    code = (
        "import sys, rftf_torchrl.envs, rftf_torchrl.calvin\n"
        "found = {'pybullet', 'calvin_env', 'gym'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(found)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, encoding="utf-8"
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_a_clone_in_place_is_found(install):
    package = install(".git", *FOLDERS)
    assert require_calvin_env() == package.resolve()
