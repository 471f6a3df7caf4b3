"""A run is never silent for half a minute, and its lines are in a file."""

import logging
import re
import sys
from itertools import pairwise

import pytest

from rftf_torchrl import progress_bar
from rftf_torchrl.training import progress
from rftf_torchrl.training.run_log import RunLog, run_log

logger = logging.getLogger("work")


class Clock:
    """A clock that waiting sets on; something happens after some of the seconds."""

    def __init__(self, end, happens=None):
        self.now, self.end, self.happens = 0.0, end, happens or {}
        self.waits = 0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.waits += 1
        assert self.waits < 1000
        target = self.now + seconds
        for when in sorted(self.happens):
            if self.now < when <= target:
                self.now = when
                self.happens.pop(when)()
        self.now = target
        return self.now >= self.end


@pytest.fixture
def heard(monkeypatch, caplog):
    """When a line was logged and what it said; every logger is heard."""

    def listen(log, clock):
        lines = []
        emit = log.emit

        def emitted(record):
            lines.append((clock.now, record.getMessage()))
            emit(record)

        monkeypatch.setattr(log, "emit", emitted)
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [*root.handlers, log])
        caplog.set_level(logging.INFO)
        return lines

    return listen


def gaps(lines, end):
    times = [0.0, *(when for when, _ in lines), end]
    return [after - before for before, after in pairwise(times)]


def test_a_long_stage_says_something_every_half_minute(heard, tmp_path):
    clock = Clock(end=600.0)
    log = RunLog(tmp_path / "log.txt", clock)
    lines = heard(log, clock)
    with progress_bar(40, "rftf", unit="iterations", show=None) as bar:
        bar.set_postfix(success="0.25", refresh=False)
        bar.update(10)
        log.watch(clock.wait)
    assert max(gaps(lines, 600.0)) <= 30
    said = [text for _, text in lines[:-1]]
    assert said
    assert all(text.startswith("rftf: 10 of 40 iterations in ") for text in said)
    assert all(text.endswith(" left, success 0.25") for text in said)


def test_a_stage_without_a_bar_names_the_last_line(heard, tmp_path):
    clock = Clock(end=90.0, happens={10.0: lambda: logger.info("draws curves\n| a | table |")})
    log = RunLog(tmp_path / "log.txt", clock)
    lines = heard(log, clock)
    log.watch(clock.wait)
    assert lines == [
        (10.0, "draws curves\n| a | table |"),
        (35.0, "at work for 25.0 s since: draws curves"),
        (60.0, "at work for 50.0 s since: draws curves"),
        (85.0, "at work for 1 min 15 s since: draws curves"),
    ]


def test_where_lines_are_not_wanted_the_watch_waits_between_them(caplog, tmp_path):
    caplog.set_level(logging.ERROR)
    clock = Clock(end=100.0)
    RunLog(tmp_path / "log.txt", clock).watch(clock.wait)
    assert clock.waits == 4


def test_who_speaks_is_not_interrupted(heard, tmp_path):
    happens = {float(when): lambda: logger.info("a line") for when in range(20, 200, 20)}
    clock = Clock(end=180.0, happens=happens)
    log = RunLog(tmp_path / "log.txt", clock)
    lines = heard(log, clock)
    log.watch(clock.wait)
    assert {text for _, text in lines} == {"a line"}


def texts(folder):
    """The lines of a log without their times."""
    lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    return [line[21:] if line[:2] == "20" else line for line in lines]


def test_lines_go_to_the_file_of_the_run_and_are_kept_by_the_next(caplog, tmp_path):
    caplog.set_level(logging.INFO)
    before = logging.getLogger().handlers[:]
    for number in range(2):
        with run_log(tmp_path), run_log(tmp_path):
            logger.info("run %d", number)
            list(progress_bar(range(3), "count"))
    logger.info("not of the run")
    found = texts(tmp_path)
    assert found[0] == "run 0"
    assert re.match(r"count: 3 of 3 steps in \d+\.\d s", found[1])
    assert found[2] == "run 1"
    assert len(found) == 4
    assert logging.getLogger().handlers == before


def test_a_folder_by_another_spelling_is_the_same_run(caplog, tmp_path):
    caplog.set_level(logging.INFO)
    (tmp_path / "a").mkdir()
    with run_log(tmp_path / "a" / ".." / "a"), run_log(tmp_path / "a" / ".." / "a"):
        logging.getLogger("test").info("hello")
    assert texts(tmp_path / "a").count("hello") == 1


def test_what_stopped_a_run_is_in_its_file_with_the_place(tmp_path):
    with pytest.raises(ValueError, match=r"^nothing to read$"), run_log(tmp_path):
        raise ValueError("nothing to read")
    found = texts(tmp_path)
    assert found[0] == "stopped by ValueError: nothing to read"
    assert found[1] == "Traceback (most recent call last):"
    assert found[-1] == "ValueError: nothing to read"


def test_on_a_terminal_bars_are_drawn_and_their_lines_go_to_the_file_alone(
    caplog, capsys, monkeypatch, tmp_path
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with run_log(tmp_path):
        logger.info("begins")
        list(progress_bar(range(3), "count"))
    assert "count: 100%" in capsys.readouterr().err
    assert [record.getMessage() for record in caplog.records] == ["begins"]
    assert [line.partition(" steps")[0] for line in texts(tmp_path)] == ["begins", "count: 3 of 3"]
    assert progress.logger.propagate
