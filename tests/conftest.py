"""One thread per test process, tests in any order, what is slow or skipped, less garbage."""

import gc
import logging
import os
import signal
import sys
import warnings

import pytest
import torch
from _process import state_of_the_process

# On shared cores more threads make tests many times slower.
torch.set_num_threads(1)
# What is imported and collected stays: it is not searched for garbage again and again.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("recipe"):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Random numbers of fixtures that many tests share do not depend on the test before."""
    torch.manual_seed(0)
    if item.get_closest_marker("libero"):
        from rftf_torchrl import LiberoNotInstalledError, require_libero

        try:
            require_libero()
        except LiberoNotInstalledError as error:
            pytest.skip(str(error))


@pytest.fixture(autouse=True)
def any_order():
    """A test's random numbers do not depend on the tests before, nor those after on its traces."""
    torch.manual_seed(0)
    before = state_of_the_process()
    yield
    assert state_of_the_process() == before, "left behind for the next test"


@pytest.fixture
def rftf(monkeypatch):
    """The command ``rftf`` in this process, which is put back as it was."""
    from rftf_torchrl import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rftf", *arguments])
        cli.main()

    known = [each for each in logging.root.manager.loggerDict.values() if hasattr(each, "handlers")]
    loggers = [(each, each.level, each.handlers[:]) for each in (logging.getLogger(), *known)]
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "path", sys.path[:])
    environment, at_sigterm = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield run
    for logger, level, handlers in loggers:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    signal.signal(signal.SIGTERM, at_sigterm)
    for name in set(os.environ) - set(environment):
        del os.environ[name]
