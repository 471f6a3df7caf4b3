"""Simulators that are lost in a collection, and many collections: the short form."""

import re
import signal

import collect_anywhere as faults
import pytest

pytestmark = pytest.mark.slow

LINE = (
    r"a simulator process (died with exit code -9|hung for 2 s); "
    r"(Episode\(task='sleep', seed=\d+, instruction=None\), \d+ in the list, is dropped"
    r"|it was playing nothing)"
)


@pytest.mark.parametrize("moment", faults.MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("serve", [False, True], ids=["copy", "server"])
def test_a_lost_simulator_costs_its_episode_and_nothing_else(serve, number, moment):
    _, line, same = faults.lose_simulator(serve, moment, number)
    assert re.fullmatch(LINE, line)
    assert same


@pytest.mark.parametrize("serve", [False, True], ids=["copy", "server"])
def test_collections_leave_nothing_behind(serve):
    before, after = faults.collect_often(serve, 20)
    for name in ("file descriptors", "threads"):
        assert after[name] <= before[name]
