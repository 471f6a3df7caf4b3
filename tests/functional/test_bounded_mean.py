"""The interval of a bounded mean: known cases, symmetries, its limit and its coverage."""

import math
import re

import numpy as np
import pytest

from rftf_torchrl import bounded_mean_interval

Z = 1.959963984540054


@pytest.mark.parametrize("count", [1, 4, 50])
def test_the_same_number_again_and_again(count):
    """exp(-z^2 / 2n) of the probability stays on the number, the rest may lie on a bound."""
    kept = math.exp(-(Z**2) / 2 / count)
    at_the_bound = bounded_mean_interval([5] * count, 0, 5)
    assert at_the_bound == pytest.approx((5 * kept, 5))
    inside = bounded_mean_interval([3] * count, 0, 5)
    assert inside == pytest.approx((3 * kept, 3 * kept + 5 * (1 - kept)))


def test_of_zeros_and_ones_it_is_the_binomial_likelihood_ratio():
    low, high = bounded_mean_interval([1] * 7 + [0] * 3, 0, 1)
    for end in (low, high):
        ratio = 7 * math.log(0.7 / end) + 3 * math.log(0.3 / (1 - end))
        assert 2 * ratio == pytest.approx(Z**2)
    assert low < 0.7 < high


def test_it_moves_and_turns_with_the_numbers():
    values = [0.0, 1.0, 1.0, 4.0]
    low, high = bounded_mean_interval(values, 0, 5)
    assert bounded_mean_interval([2 * v - 3 for v in values], -3, 7) == pytest.approx(
        (2 * low - 3, 2 * high - 3)
    )
    assert bounded_mean_interval([-v for v in values], -5, 0) == pytest.approx((-high, -low))
    assert bounded_mean_interval(values[::-1], 0, 5) == (low, high)


def test_wider_bounds_and_more_confidence_widen_it():
    values = [0, 0, 0, 2]
    low, high = bounded_mean_interval(values, -5, 5)
    assert low < bounded_mean_interval(values, 0, 5)[0] < 0.5
    assert high == pytest.approx(bounded_mean_interval(values, 0, 5)[1])
    wide = bounded_mean_interval(values, -5, 5, 0.99)
    assert wide[0] < low < high < wide[1]


def test_of_many_numbers_it_is_the_normal_interval():
    values = np.random.default_rng(0).integers(0, 6, 5000)
    half = Z * values.std() / math.sqrt(len(values))
    expected = (values.mean() - half, values.mean() + half)
    assert bounded_mean_interval(values, 0, 5) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_it_covers_the_mean_of_few_chains():
    """Chains of which each task is done in nine of ten cases; the normal one covers 87%."""
    rng, true = np.random.default_rng(0), sum(0.9**k for k in range(1, 6))
    held = 0
    for _ in range(150):
        lengths = np.cumprod(rng.random((8, 5)) < 0.9, 1).sum(1)
        low, high = bounded_mean_interval(lengths, 0, 5)
        held += low <= true <= high
    assert held / 150 > 0.9


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("bound", [0, 0.1, 0.7])
def test_it_stays_in_the_bounds_where_all_numbers_are_at_one(bound, count):
    """A sum of numbers rounds, and a report does not say -0.00."""
    low, _ = bounded_mean_interval([bound] * count, bound, 1)
    _, high = bounded_mean_interval([bound] * count, -1, bound)
    assert bound <= low == pytest.approx(bound)
    assert bound >= high == pytest.approx(bound)
    assert math.copysign(1, low) == 1


def test_no_number_has_no_mean():
    assert all(map(math.isnan, bounded_mean_interval([], 0, 5)))


@pytest.mark.parametrize("value", [5.1, -0.1, math.nan])
def test_a_number_out_of_the_bounds_is_named(value):
    message = f"values[1] is {value}; expected a number in [0, 5]."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bounded_mean_interval([1, value], 0, 5)
