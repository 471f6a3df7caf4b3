"""One thread per test process, whole recipes count as slow tests, and less garbage collection."""

import gc
import logging

import pytest
import torch

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


@pytest.fixture(autouse=True)
def root_logger_as_before():
    """A recipe that runs in a test leaves Hydra's handler, whose captured stream closes with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
