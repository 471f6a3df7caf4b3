import logging
import time

import pytest

from rftf_torchrl import PhaseClock, progress_bar


def test_bar_goes_through_an_iterable(capsys):
    assert list(progress_bar([1, 2, 3], "collect", show=True)) == [1, 2, 3]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "collect" in shown.err
    assert "3/3" in shown.err


def test_bar_counts_to_a_total(capsys):
    with progress_bar(4, "train", show=True) as bar:
        for _ in range(4):
            bar.update()
    assert bar.n == 4
    assert "4/4" in capsys.readouterr().err


def test_bar_is_not_drawn_where_it_is_not_wanted_or_there_is_no_terminal(capsys, caplog):
    caplog.set_level(logging.INFO)
    assert list(progress_bar(range(3), "collect", show=False)) == [0, 1, 2]
    assert not caplog.records
    assert list(progress_bar(range(3), "collect")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert len(caplog.records) == 1


def bar_after(monkeypatch, seconds, done, total, **numbers):
    """A bar after some seconds of work."""
    bar = progress_bar(total, "train", unit="episodes")
    bar.start_t = bar._time() - seconds
    monkeypatch.setattr(bar, "_time", lambda: bar.start_t + seconds)
    bar.n = done
    bar.set_postfix(**numbers, refresh=False)
    return bar


@pytest.mark.parametrize(
    ("seconds", "done", "total", "numbers", "sentence"),
    [
        (25.0, 0, 8, {}, "train: 0 of 8 episodes in 25.0 s"),
        (
            60.0,
            150,
            600,
            {"loss": "0.25", "kl": "0.1"},
            "train: 150 of 600 episodes in 1 min 0 s, 2.5 a second, about 3 min 0 s left, "
            "kl 0.1, loss 0.25",
        ),
        (
            7200.0,
            60,
            150,
            {},
            "train: 60 of 150 episodes in 2 h 0 min, 2 min 0 s each, about 3 h 0 min left",
        ),
        (5.0, 10, 10, {}, "train: 10 of 10 episodes in 5.0 s, 2.0 a second"),
    ],
)
def test_a_bar_in_words(monkeypatch, seconds, done, total, numbers, sentence):
    bar = bar_after(monkeypatch, seconds, done, total, **numbers)
    assert bar.sentence() == sentence


@pytest.fixture
def ticks(monkeypatch):
    """A clock that shows the given times, one after another."""

    def set_times(*times):
        remaining = iter(times)
        monkeypatch.setattr(time, "perf_counter", lambda: next(remaining))

    return set_times


def test_clock_adds_up_per_phase(ticks):
    ticks(0.0, 2.0, 10.0, 11.0, 20.0, 24.0)
    clock = PhaseClock()
    for phase in ("collect", "train", "collect"):
        with clock(phase):
            pass
    assert clock.seconds == {"collect": 6.0, "train": 1.0}


def test_clock_counts_a_phase_that_raises_and_phases_inside_phases(ticks):
    ticks(0.0, 1.0, 4.0, 9.0)
    clock = PhaseClock()
    with pytest.raises(RuntimeError), clock("outer"), clock("inner"):
        raise RuntimeError
    assert clock.seconds == {"inner": 3.0, "outer": 9.0}


def test_a_clock_goes_on_from_its_file(ticks, tmp_path):
    ticks(0.0, 2.0, 10.0, 11.0, 20.0, 24.0)
    file = tmp_path / "seconds.json"
    for phase in ("collect", "train", "collect"):
        with PhaseClock(file)(phase):
            pass
    assert PhaseClock(file).seconds == {"collect": 6.0, "train": 1.0}


def test_seconds_are_a_copy():
    clock = PhaseClock()
    clock.seconds["collect"] = 1.0
    assert clock.seconds == {}


def test_a_bar_over_what_has_no_length(caplog):
    with caplog.at_level(logging.INFO):
        assert list(progress_bar(iter(range(3)), "count")) == [0, 1, 2]
    assert "count: 3 steps in " in caplog.text
