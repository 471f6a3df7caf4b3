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


@pytest.mark.parametrize("show", [False, None])
def test_bar_is_quiet_when_not_wanted_or_not_on_a_terminal(capsys, show):
    assert list(progress_bar(range(3), "collect", show=show)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


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


def test_seconds_are_a_copy():
    clock = PhaseClock()
    clock.seconds["collect"] = 1.0
    assert clock.seconds == {}
