"""Skip what this machine cannot run, with the reason, and environments without the simulator."""

from __future__ import annotations

import fake_calvin
import pytest

from rftf_torchrl import CalvinEnv, CalvinNotInstalledError, require_calvin_env
from rftf_torchrl.calvin import env


@pytest.fixture(scope="session")
def requires_calvin():
    """Ask for this fixture where the simulator runs; tests marked ``calvin`` have it already."""
    try:
        return require_calvin_env()
    except CalvinNotInstalledError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _marked_tests_require_calvin(request):
    if request.node.get_closest_marker("calvin") is not None:
        request.getfixturevalue("requires_calvin")


@pytest.fixture
def make_env():
    """Environments of the real simulator that are closed at the end of the test."""
    envs = []

    def make(task="close_drawer", **arguments):
        arguments.setdefault("image_size", None)
        envs.append(CalvinEnv(task, **arguments))
        return envs[-1]

    yield make
    for one in envs:
        one.close()


@pytest.fixture
def make_fake_env(monkeypatch, make_env):
    """Environments that play the recorded trace, whatever the action."""
    monkeypatch.setattr(env, "CalvinSimulator", fake_calvin.FakeSimulator)
    return make_env
