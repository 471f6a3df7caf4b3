"""Intervals over runs: coverage by simulation, known answers, wrong input."""

import math
import re

import pytest
import torch

from rftf_torchrl import bootstrap_interval, interquartile_mean, paired_difference

stats = pytest.importorskip("scipy.stats")

STUDIES = 250


def mean_of_all(groups):
    return torch.cat([group.flatten(1) for group in groups], -1).mean(-1)


def iqm_of_all(groups):
    return interquartile_mean(torch.cat([group.flatten(1) for group in groups], -1))


def test_for_a_mean_of_one_group_it_is_students_interval():
    scores = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)).double()
    found = bootstrap_interval([scores], mean_of_all, resamples=20_000)
    expected = stats.ttest_1samp(scores.mean(-1).numpy(), 0.0).confidence_interval()
    assert found.estimate == pytest.approx(scores.mean().item())
    assert found.low == pytest.approx(expected.low, abs=0.005)
    assert found.high == pytest.approx(expected.high, abs=0.005)


@pytest.mark.parametrize(
    ("runs", "statistic"),
    [
        (3, mean_of_all),
        (5, iqm_of_all),
        pytest.param(5, mean_of_all, marks=pytest.mark.slow),
        pytest.param(8, iqm_of_all, marks=pytest.mark.slow),
    ],
)
def test_coverage(runs, statistic):
    """Tasks of 0.3, 0.5 and 0.7, a run's luck in common and noise of each task."""
    generator = torch.Generator().manual_seed(runs)
    levels, covered = torch.tensor([0.3, 0.5, 0.7]), 0
    for study in range(STUDIES):
        luck = 0.08 * torch.randn(runs, 1, generator=generator)
        scores = levels + luck + 0.05 * torch.randn(runs, 3, generator=generator)
        found = bootstrap_interval([scores], statistic, resamples=200, seed=study)
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / STUDIES <= 0.99


def test_coverage_of_two_strata():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for study in range(STUDIES):
        groups = [
            level + spread * torch.randn(5, 2, generator=generator)
            for level, spread in ((0.2, 0.05), (0.6, 0.1))
        ]
        found = bootstrap_interval(groups, mean_of_all, resamples=200, seed=study)
        covered += found.low <= 0.4 <= found.high
    assert 0.90 <= covered / STUDIES <= 0.99


@pytest.mark.parametrize("difference", [0.0, 0.1])
def test_paired_difference_covers_and_finds_what_it_says_it_can(difference):
    generator = torch.Generator().manual_seed(1)
    covered, found, detectable = 0, 0, []
    for _ in range(1000):
        luck = 0.2 * torch.randn(8, generator=generator)
        x = luck + difference + 0.06 * torch.randn(8, generator=generator)
        y = luck + 0.06 * torch.randn(8, generator=generator)
        interval = paired_difference(x, y)
        covered += interval.low <= difference <= interval.high
        found += interval.low > 0
        detectable.append(interval.detectable)
    assert 0.93 <= covered / 1000 <= 0.97
    if difference:
        assert sum(detectable) / 1000 == pytest.approx(difference, abs=0.02)
        assert 0.7 <= found / 1000 <= 0.9
    else:
        assert found / 1000 <= 0.04


def test_paired_difference_is_scipys():
    x, y = torch.rand(2, 7, generator=torch.Generator().manual_seed(2)).double()
    expected = stats.ttest_rel(x.numpy(), y.numpy()).confidence_interval()
    found = paired_difference(x, y)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.runs == 7


def test_equal_runs_have_an_interval_without_width():
    found = paired_difference(torch.full((4,), 0.75), torch.full((4,), 0.5))
    assert (found.estimate, found.low, found.high) == (0.25, 0.25, 0.25)
    found = bootstrap_interval([torch.ones(4, 2)], mean_of_all)
    assert (found.estimate, found.low, found.high) == (1.0, 1.0, 1.0)


def test_one_run_has_no_interval():
    found = bootstrap_interval([torch.ones(1, 2)], mean_of_all)
    assert found.estimate == 1.0
    assert math.isnan(found.low)
    assert math.isnan(paired_difference(torch.ones(1), torch.zeros(1)).high)


def test_bounds_and_seeds():
    scores = torch.tensor([[0.9], [1.0], [0.7]])
    found = bootstrap_interval([scores], mean_of_all, bounds=(0.0, 1.0))
    assert found.high == 1.0
    assert found == bootstrap_interval([scores], mean_of_all, bounds=(0.0, 1.0))
    assert found != bootstrap_interval([scores], mean_of_all, bounds=(0.0, 1.0), seed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bootstrap_interval([torch.zeros(2, 1), torch.zeros(0, 1)], mean_of_all),
            "the groups have shapes [[2, 1], [0, 1]]; expected one run at least in each.",
        ),
        (
            lambda: paired_difference(torch.zeros(2), torch.zeros(3)),
            "x has shape [2] and y has shape [3]; expected [n] pairs, one at least.",
        ),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
