"""Wilson and Newcombe intervals against scipy and the published examples."""

import re

import pytest
import torch
from scipy.stats import binomtest

from rftf_torchrl import newcombe_interval, wilson_interval


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 50), (7, 50), (50, 50), (321, 1000)]
)
def test_wilson_matches_scipy(successes, trials, confidence):
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(successes, trials, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_is_exact_at_the_ends_and_symmetric():
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0
    low, high = wilson_interval(3, 20)
    assert wilson_interval(17, 20) == pytest.approx((1 - high, 1 - low))


def test_tensors_broadcast_and_equal_ints():
    successes, trials = torch.tensor([[3], [9]]), torch.tensor([10, 20])
    low, high = wilson_interval(successes, trials)
    assert low.shape == high.shape == (2, 2)
    assert low.dtype == torch.float64
    assert (low[1, 0].item(), high[1, 0].item()) == pytest.approx(wilson_interval(9, 10))
    low, high = newcombe_interval(successes, 10, 5, trials)
    assert (low[0, 1].item(), high[0, 1].item()) == pytest.approx(newcombe_interval(3, 10, 5, 20))


# Newcombe 1998, table II, method 10
PUBLISHED = [
    ((56, 70, 48, 80), (0.0524, 0.3339)),
    ((9, 10, 3, 10), (0.1705, 0.8090)),
    ((6, 7, 2, 7), (0.0582, 0.8062)),
    ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ((0, 10, 0, 20), (-0.1611, 0.2775)),
    ((0, 10, 0, 10), (-0.2775, 0.2775)),
    ((10, 10, 0, 20), (0.6791, 1.0)),
    ((10, 10, 0, 10), (0.6075, 1.0)),
]


@pytest.mark.parametrize(("counts", "expected"), PUBLISHED)
def test_newcombe_matches_the_paper(counts, expected):
    assert newcombe_interval(*counts) == pytest.approx(expected, abs=5e-5)


def test_newcombe_changes_sign_when_swapped():
    low, high = newcombe_interval(8, 30, 15, 40, 0.9)
    assert newcombe_interval(15, 40, 8, 30, 0.9) == pytest.approx((-high, -low))


BROKEN = [
    (ValueError, wilson_interval, (0, 0), "trials is 0; expected at least one trial."),
    (
        ValueError,
        wilson_interval,
        (5, 4),
        "successes is 5 for 4 trials; expected a number in [0, trials].",
    ),
    (
        ValueError,
        wilson_interval,
        (1, 4, 95),
        "confidence is 95; expected a number in (0, 1), as 0.95.",
    ),
    (
        TypeError,
        wilson_interval,
        (0.5, 4),
        "successes has dtype torch.float32; expected an integer count.",
    ),
    (
        ValueError,
        wilson_interval,
        (torch.zeros(2, dtype=torch.int64), torch.ones(3, dtype=torch.int64)),
        "successes has shape [2] and trials has shape [3]; expected shapes that broadcast.",
    ),
    (
        ValueError,
        newcombe_interval,
        (1, 4, -1, 4),
        "successes_b is -1 for 4 trials_b; expected a number in [0, trials_b].",
    ),
]


@pytest.mark.parametrize(("error", "function", "arguments", "message"), BROKEN)
def test_broken_inputs(error, function, arguments, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        function(*arguments)
