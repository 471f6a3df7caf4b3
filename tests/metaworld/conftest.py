"""Skip what this machine cannot run, with the reason."""

from __future__ import annotations

import importlib.util

import pytest

from rftf_torchrl import MetaWorldEnv, NoOpenGLBackendError, select_gl_backend


def pytest_runtest_setup(item):
    """Before the fixtures of a module, which may need it."""
    if item.get_closest_marker("metaworld") is None:
        return
    for package in ("metaworld", "packaging"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture
def pictures():
    """Ask for this fixture where something is drawn."""
    try:
        return select_gl_backend()
    except NoOpenGLBackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def make_env():
    """Environments that are closed at the end of the test; drawer-open and state-only at first."""
    envs = []

    def make(task="drawer-open", **arguments):
        arguments.setdefault("image_size", None)
        envs.append(MetaWorldEnv(task, **arguments))
        return envs[-1]

    yield make
    for env in envs:
        env.close()
