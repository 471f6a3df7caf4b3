"""Skip what this machine cannot run, with the reason; one environment at a time."""

from __future__ import annotations

import pytest

from rftf_torchrl import (
    LiberoEnv,
    LiberoNotInstalledError,
    NoOpenGLBackendError,
    require_libero,
    select_gl_backend,
)


def pytest_runtest_setup(item):
    """Before the fixtures of a module, which may need it."""
    if item.get_closest_marker("libero") is None:
        return
    try:
        require_libero()
    except LiberoNotInstalledError as error:
        pytest.skip(str(error))


@pytest.fixture
def pictures():
    """Ask for this fixture where something is drawn."""
    try:
        return select_gl_backend()
    except NoOpenGLBackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def make_env():
    """Environments, each closed before the next is made; state-only at first."""
    envs = []

    def make(task="turn_on_the_stove", suite="libero_goal", **arguments):
        while envs:
            envs.pop().close()
        arguments.setdefault("image_size", None)
        envs.append(LiberoEnv(task, suite=suite, **arguments))
        return envs[-1]

    yield make
    while envs:
        envs.pop().close()
