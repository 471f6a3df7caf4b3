"""One thread per test process, and whole recipes count as slow tests."""

import pytest
import torch

# On shared cores more threads make tests many times slower.
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("recipe"):
            item.add_marker(pytest.mark.slow)
