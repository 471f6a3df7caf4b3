"""Aggregates of scores: known answers, SciPy's, ties, and wrong input."""

import math
import re

import pytest
import torch

from rftf_torchrl import interquartile_mean, probability_of_improvement, steps_to_level


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 40])
def test_interquartile_mean_is_scipys_trimmed_mean(count):
    stats = pytest.importorskip("scipy.stats")
    scores = torch.rand(6, count, generator=torch.Generator().manual_seed(count)).double()
    expected = torch.as_tensor(stats.trim_mean(scores.numpy(), 0.25, axis=-1))
    torch.testing.assert_close(interquartile_mean(scores), expected)


def test_interquartile_mean_ignores_an_outlier():
    assert interquartile_mean(torch.tensor([0.4, 0.5, 0.6, -100.0])).item() == pytest.approx(0.45)


def test_probability_of_improvement_counts_ties_half():
    x, y = torch.tensor([[1.0, 0.0], [0.5, 0.0]]), torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    assert probability_of_improvement(x, y).item() == pytest.approx((3.5 / 4 + 2 / 4) / 2)
    assert probability_of_improvement(y, x).item() == pytest.approx(1 - (3.5 / 4 + 2 / 4) / 2)
    assert probability_of_improvement(x, x).item() == pytest.approx(0.5)


def test_probability_of_improvement_is_scipys_mann_whitney():
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(7, 1, generator=generator), torch.rand(9, 1, generator=generator)
    expected = stats.mannwhitneyu(x[:, 0].numpy(), y[:, 0].numpy()).statistic / 63
    assert probability_of_improvement(x, y).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0.1, 0.0),
        (0.2, 0.0),
        (0.3, 50.0),
        (0.4, 100.0),
        (0.5, 225.0),
        (0.6, 250.0),
        (0.7, math.inf),
    ],
)
def test_steps_to_level(level, expected):
    steps, success = torch.tensor([0, 100, 200, 250]), torch.tensor([0.2, 0.4, 0.4, 0.6])
    assert steps_to_level(steps, success, level) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: interquartile_mean(torch.zeros(0)),
            ValueError,
            "scores has shape [0]; expected at least one score.",
        ),
        (
            lambda: interquartile_mean(torch.tensor([0.0, math.nan])),
            ValueError,
            "scores[1] is nan; expected finite numbers (1 of 2 entries are not).",
        ),
        (
            lambda: probability_of_improvement(torch.zeros(2, 3), torch.zeros(2, 4)),
            ValueError,
            "x has shape [2, 3] and y has shape [2, 4]; expected [..., runs, tasks] with the same "
            "tasks.",
        ),
        (
            lambda: steps_to_level(torch.tensor([0, 5, 5]), torch.zeros(3), 0.5),
            ValueError,
            "steps has shape [3]; expected [n] with every entry above the one before.",
        ),
    ],
)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
