"""Tests in one process do not depend on each other: what ``tests/conftest.py`` holds."""

import logging
import signal

import pytest
import torch
from _process import state_of_the_process


def test_each_trace_is_seen(monkeypatch, tmp_path):
    before, default = state_of_the_process(), signal.getsignal(signal.SIGTERM)
    handler = logging.NullHandler()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure = pyplot.figure()
    logging.getLogger().addHandler(handler)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    with torch.no_grad():
        after = state_of_the_process()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    signal.signal(signal.SIGTERM, default)
    logging.getLogger().removeHandler(handler)
    pyplot.close(figure)
    assert {name for name in before if after[name] == before[name]} == set()


@pytest.fixture(scope="module")
def shared():
    return torch.randn(3)


@pytest.mark.parametrize("number", [1, 2])
def test_random_numbers_are_the_same_whatever_was_drawn_before(shared, number):
    expected = torch.randn(3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.randn(3), expected)
    assert torch.equal(shared, expected)
