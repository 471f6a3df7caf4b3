"""Workers and their parents, stopped and killed: the short form of ``stop_anywhere.py``."""

import signal

import pytest
import stop_anywhere as faults
import torch

SIGNALS = [pytest.param(signal.SIGSTOP, marks=pytest.mark.slow), signal.SIGKILL]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("state", [s for s in faults.WORKER_STATES if s != "closing"])
def test_a_lost_worker_is_noticed_and_the_pool_closes(state, number):
    """The loop ends, or the guard against hanging raises."""
    assert min(faults.stop_worker(state, number)) >= 0


@pytest.mark.slow
def test_closing_a_pool_of_stopped_workers_ends():
    assert faults.stop_worker("closing", signal.SIGSTOP) > (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("state", faults.PARENT_STATES)
def test_no_process_is_left_by_a_killed_parent(state):
    assert faults.end_parent("toy", state, signal.SIGKILL) < torch.inf


@pytest.mark.slow
@pytest.mark.metaworld
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_by_an_ended_collector(number):
    assert faults.end_parent("collector", "playing", number) < torch.inf


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_by_an_ended_server(number):
    assert faults.end_parent("server", "playing", number) < torch.inf
