"""Pooling chain evaluations over seeds: by hand, and what is refused."""

import math

import pytest

from rftf_torchrl import ChainReport, ChainResult, bounded_mean_interval, compare_seeds

TASKS = ("open_drawer", "close_drawer", "turn_on_led")


def report(*lengths, first=0):
    chains = (ChainResult(first + i, TASKS, (9, 9, 9)[: n + 1], n) for i, n in enumerate(lengths))
    return ChainReport(tuple(chains))


def test_by_hand():
    before = [report(0, 1, 2), report(1, 1, 1)]
    after = [report(1, 2, 2), report(3, 1, 2)]
    found = compare_seeds(before, after)
    assert (found["seeds"], found["chains"]) == (2, 3)
    assert found["by_seed"] == pytest.approx([2 / 3, 1.0])
    assert found["difference"] == pytest.approx(5 / 6)
    assert (found["before"], found["after"]) == pytest.approx((1.0, 11 / 6))
    # Chains, averaged over the seeds: 1.5, 0.5, 0.5.
    expected = bounded_mean_interval([1.5, 0.5, 0.5], -3, 3)
    assert found["over_chains"] == pytest.approx(expected)
    # Student's t with one degree of freedom is 12.706.
    half = 12.7062 * (1 / 3) / 2
    assert found["over_seeds"] == pytest.approx((5 / 6 - half, 5 / 6 + half), rel=1e-4)


def test_two_seeds_differ_by_no_more_than_a_chain_is_long():
    found = compare_seeds([report(0, 0), report(0, 3)], [report(3, 3), report(0, 3)])
    assert found["over_seeds"] == (-3, 3)


def test_one_seed_says_nothing_about_training_again():
    found = compare_seeds([report(0, 1)], [report(1, 1)])
    assert all(math.isnan(bound) for bound in found["over_seeds"])


def test_what_is_refused():
    with pytest.raises(ValueError, match="2 evaluations before and 1 after"):
        compare_seeds([report(0), report(0)], [report(0)])
    with pytest.raises(ValueError, match="expected one of each a seed"):
        compare_seeds([], [])
    with pytest.raises(ValueError, match="evaluation 1 lacks chains"):
        compare_seeds([report(0, 1), report(0)], [report(0, 1), report(1)])
    elsewhere = ChainReport(report(0).results, settings={"scene": "A"})
    here = ChainReport(report(0).results, settings={"scene": "D"})
    message = "scene is 'D' in the first evaluation and 'A' in evaluation 1; expected the same"
    with pytest.raises(ValueError, match=message):
        compare_seeds([here, elsewhere], [here, elsewhere])
    other = ChainReport((ChainResult(0, TASKS[::-1], (9,), 0),))
    with pytest.raises(ValueError, match=r"^chain 0 is open_drawer, .* in the first evaluation"):
        compare_seeds([report(0), other], [report(1), other])
