"""What a tiny quick start writes to the console without a terminal is in a file, times masked.

    python tests/recipes/test_console_output.py    # writes the file again

Decimals and numbers of thousands differ from machine to machine and are masked too.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tiny import TINY

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]

GOLDEN = Path(__file__).with_name("console_of_quickstart.txt")
TIME = r"(\d+\.\d s|\d+ min \d+ s|\d+ h \d+ min)"
MASKS = (
    (rf"{TIME} each|\d+\.\d a second", "<rate>"),
    (TIME, "<time>"),
    (r"[+-]?(\d+\.\d+|\d{1,3}(,\d{3})+)", "<number>"),
)
SLOW = re.compile(rf"about {TIME} left|^at work for |: 0 of \d+ ")
"""Lines of a machine that needs half a minute for a stage."""


def masked(text):
    """The lines that every machine writes, without what differs."""
    lines = [line for line in text.splitlines() if not SLOW.search(line)]
    for pattern, mask in MASKS:
        lines = [re.sub(pattern, mask, line) for line in lines]
    return lines


def run(folder):
    """The console of a quick start in a folder, and its log without the times of the lines."""
    main = "from rftf_torchrl.cli import main; main()"
    command = [sys.executable, "-c", main, "quickstart", *TINY, "threads=1", "output=run"]
    done = subprocess.run(
        command, cwd=folder, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout[-3000:]
    log = (Path(folder) / "run" / "log.txt").read_text(encoding="utf-8")
    return masked(done.stdout), masked(re.sub(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", log))


def test_the_console_and_the_log_of_a_quick_start(tmp_path):
    console, log = run(tmp_path)
    assert console == GOLDEN.read_text(encoding="utf-8").splitlines()
    assert log == console[1:], "the log has all but the line before the imports"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text("\n".join(run(place)[0]) + "\n", encoding="utf-8")
