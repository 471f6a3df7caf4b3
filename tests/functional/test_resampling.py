"""Bootstrap weights against drawing episodes, against SciPy, and by simulation."""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from rftf_torchrl import bootstrap_counts, percentile_interval


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_counts_are_those_of_drawn_episodes():
    counts = bootstrap_counts(6, 4, generator())
    drawn = torch.randint(6, (4, 6), generator=generator())
    assert counts.tolist() == [torch.bincount(row, minlength=6).tolist() for row in drawn]


def test_a_seed_gives_the_same_counts():
    assert torch.equal(bootstrap_counts(5, 9, generator(3)), bootstrap_counts(5, 9, generator(3)))
    assert not torch.equal(
        bootstrap_counts(5, 9, generator()), bootstrap_counts(5, 9, generator(1))
    )


def test_interval_of_a_mean_is_scipys():
    sample = np.random.default_rng(0).normal(size=40)
    expected = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    means = bootstrap_counts(40, 20_000, generator()) @ torch.as_tensor(sample) / 40
    low, high = percentile_interval(means)
    assert low.item() == pytest.approx(expected.low, abs=0.01)
    assert high.item() == pytest.approx(expected.high, abs=0.01)


def test_interval_of_a_mean_covers_the_truth():
    samples = torch.rand(400, 30, generator=generator(5), dtype=torch.float64)
    means = bootstrap_counts(30, 500, generator(6)) @ samples.T / 30
    low, high = percentile_interval(means)
    assert 0.90 <= ((low <= 0.5) & (high >= 0.5)).double().mean().item() <= 0.98


def test_quantiles_are_numpys():
    statistics = torch.randn(101, 3, generator=generator(), dtype=torch.float64)
    low, high = percentile_interval(statistics, confidence=0.8)
    np.testing.assert_allclose(low, np.quantile(statistics, 0.1, axis=0))
    np.testing.assert_allclose(high, np.quantile(statistics, 0.9, axis=0))


BROKEN = [
    (lambda: bootstrap_counts(0, 5, generator()), "count is 0; expected at least 1."),
    (lambda: bootstrap_counts(5, 0, generator()), "resamples is 0; expected at least 1."),
    (
        lambda: percentile_interval(torch.zeros(0, 2)),
        "statistics has shape [0, 2]; expected [R, ...] with at least one resample.",
    ),
    (
        lambda: percentile_interval(torch.zeros(4), 95),
        "confidence is 95; expected a number in (0, 1), as 0.95.",
    ),
]


@pytest.mark.parametrize(("call", "message"), BROKEN)
def test_broken_input(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
