"""The clock for silence, which a stopped process does not let run on."""

from rftf_torchrl.envs import watch_clock


def test_of_a_gap_two_seconds_count(monkeypatch):
    times = iter([100.0, 100.5, 101.5, 161.5, 162.0])
    monkeypatch.setattr(watch_clock.time, "monotonic", lambda: next(times))
    clock = watch_clock.WatchClock()
    assert [clock() for _ in range(4)] == [0.5, 1.5, 3.5, 4.0]
