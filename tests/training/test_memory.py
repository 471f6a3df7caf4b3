"""The peak of a run counts the memory of its child processes."""

import subprocess
import sys

import pytest

from rftf_torchrl import PeakMemory

HOLD = "block = bytearray(150 * 2**20)\nprint('ready', flush=True)\ninput()"


def test_children_count():
    with PeakMemory(interval=60) as memory:
        if not memory.whole_tree:
            pytest.skip("this system does not tell the memory of other processes")
        before = memory.gib
        command = [sys.executable, "-c", HOLD]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ) as child:
            assert child.stdout.readline() == "ready\n"
            memory._look()
            child.communicate("\n")
    assert memory.gib - before > 0.14
    assert memory.gib < 8


def test_the_peak_is_kept():
    with PeakMemory(interval=0.02) as memory:
        block = bytearray(100 * 2**20)
        memory._look()
        peak = memory.gib
        del block
    assert memory.gib >= peak
