"""Skip what this machine cannot draw, with the reason; one environment at a time."""

from __future__ import annotations

import pytest

from rftf_torchrl import (
    LiberoEnv,
    NoOpenGLBackendError,
    select_gl_backend,
)


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
