"""The peak of a run counts the memory of its child processes."""

import subprocess
import sys
from pathlib import Path

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


def test_a_process_may_have_any_name():
    code = (
        "import ctypes, sys; "
        "ctypes.CDLL(None).prctl(15, 'a\u8fd9\u662f\u4e00\u4e2a\u540d'.encode()); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        name = Path("/proc", str(process.pid), "comm").read_bytes()
        with pytest.raises(UnicodeDecodeError):
            name.decode()
        with PeakMemory() as memory:
            pass
        process.stdin.close()
    assert memory.gib > 0
