"""The comparison pairs episodes, leaves crashes out and refuses other episodes."""

import re

import pytest
import torch

from rftf_torchrl import (
    EpisodeOutcome,
    SuccessReport,
    compare_success,
    comparison_table,
    paired_difference_interval,
)


def report(task_outcomes, crashed=()):
    outcomes = tuple(
        EpisodeOutcome(task, seed, success, 5)
        for task, successes in task_outcomes.items()
        for seed, success in enumerate(successes)
        if (task, seed) not in crashed
    )
    return SuccessReport(outcomes, tuple(crashed))


BEFORE = {"reach": [True, False, False, False], "push": [True, True]}
AFTER = {"reach": [True, True, True, False], "push": [False, True]}


def test_rates_and_intervals():
    result = compare_success(report(BEFORE), report(AFTER))
    reach = result["tasks"]["reach"]
    assert (reach["trials"], reach["before"], reach["after"]) == (4, 0.25, 0.75)
    assert (reach["difference"], reach["gained"], reach["lost"]) == (0.5, 2, 0)
    expected = paired_difference_interval(
        torch.tensor(AFTER["reach"]), torch.tensor(BEFORE["reach"])
    )
    assert (reach["low"], reach["high"]) == expected
    less = compare_success(report(BEFORE), report(AFTER), confidence=0.5)["tasks"]["reach"]
    assert reach["low"] < less["low"] < less["high"] < reach["high"]
    assert result["pooled"]["difference"] == pytest.approx(1 / 6)
    assert (result["pooled"]["gained"], result["pooled"]["lost"]) == (2, 1)
    assert result["dropped"] == 0


def test_pairs_by_task_and_seed_not_by_order():
    shuffled = report(AFTER)
    shuffled = SuccessReport(shuffled.outcomes[::-1])
    assert compare_success(report(BEFORE), shuffled) == compare_success(
        report(BEFORE), report(AFTER)
    )


def test_a_crash_on_either_side_drops_the_pair():
    result = compare_success(report(BEFORE, [("reach", 0)]), report(AFTER, [("push", 0)]))
    assert result["dropped"] == 2
    assert result["tasks"]["reach"]["trials"] == 3
    assert result["tasks"]["push"]["trials"] == 1
    assert result["tasks"]["push"]["lost"] == 0


def test_table():
    # 8 of 8 has the interval (0.6756, 1), 2 of 8 has (0.0715, 0.5907), and phi is 0:
    # 0.75 - hypot(0.3244, 0.3407) = 0.2796 and 0.75 + hypot(0, 0.1785) = 0.9285
    half = compare_success(
        report({"reach": [False] * 6 + [True] * 2}), report({"reach": [True] * 8})
    )
    assert comparison_table(half, ("cloned", "tuned")) == "\n".join(
        [
            "| task | episodes | cloned | tuned | difference | 95% interval | gained | lost |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            "| reach | 8 | 25.0% | 100.0% | +75.0 | +28.0 to +92.9 | 6 | 0 |",
            "| all episodes | 8 | 25.0% | 100.0% | +75.0 | +28.0 to +92.9 | 6 | 0 |",
        ]
    )


TWICE = SuccessReport(2 * (EpisodeOutcome("reach", 0, True, 5),))
BROKEN = [
    (
        report({"reach": [True, True]}),
        report({"reach": [True]}),
        "the episode of task 'reach' with seed 1 is only in the report 'before'; expected the "
        "same episodes in both, so that they can be paired.",
    ),
    (
        report({"reach": [True]}),
        TWICE,
        "the episode of task 'reach' with seed 0 is twice in the report 'after'; expected each "
        "episode once, so that they can be paired.",
    ),
    (
        report({"reach": [True]}, [("reach", 0)]),
        report({"reach": [True]}),
        "every episode crashed before or after; there is nothing to compare.",
    ),
]


@pytest.mark.parametrize(("before", "after", "message"), BROKEN)
def test_broken_inputs(before, after, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compare_success(before, after)
