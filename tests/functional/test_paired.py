"""The paired interval against published examples, its symmetries and its coverage."""

import re

import pytest
import torch

from rftf_torchrl import newcombe_interval, paired_difference_interval


def outcomes(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return torch.tensor(a), torch.tensor(b)


# Newcombe 1998 (paired data), and Fagerland, Lydersen, Laake 2014 (Bentur's 21 children)
PUBLISHED = [((36, 12, 2, 0), (0.0569, 0.3404), 5e-5), ((1, 1, 7, 12), (-0.507, -0.026), 5e-4)]


@pytest.mark.parametrize(("counts", "expected", "rounding"), PUBLISHED)
def test_published_examples(counts, expected, rounding):
    assert paired_difference_interval(*outcomes(*counts)) == pytest.approx(expected, abs=rounding)


def test_hand_computed():
    # n = 4, one success in each but in different episodes: p = 1/4 with Wilson (0.0456, 0.6994),
    # phi = (0 * 2 - 1 * 1) / sqrt(1 * 3 * 1 * 3) = -1/3
    down, up = 0.25 - 0.0455873, 0.6993582 - 0.25
    half = (down**2 + 2 / 3 * down * up + up**2) ** 0.5
    low, high = paired_difference_interval(*outcomes(0, 1, 1, 2))
    assert (low, high) == pytest.approx((-half, half), abs=1e-6)


def test_changes_sign_when_swapped():
    a, b = outcomes(10, 7, 2, 11)
    low, high = paired_difference_interval(a, b, 0.9)
    assert paired_difference_interval(b, a, 0.9) == pytest.approx((-high, -low))


def test_without_association_it_is_the_interval_of_independent_rates():
    a, b = outcomes(6, 6, 6, 6)
    assert paired_difference_interval(a, b) == pytest.approx(newcombe_interval(12, 24, 12, 24))


def test_agreement_narrows_the_interval():
    low, high = paired_difference_interval(*outcomes(20, 4, 0, 16))
    independent = newcombe_interval(24, 40, 20, 40)
    assert high - low < independent[1] - independent[0]


@pytest.mark.parametrize("counts", [(5, 0, 0, 0), (0, 5, 0, 0), (0, 0, 0, 1), (0, 0, 5, 0)])
def test_empty_margins_stay_inside_the_possible(counts):
    low, high = paired_difference_interval(*outcomes(*counts))
    difference = (counts[1] - counts[2]) / sum(counts)
    assert -1.0 <= low <= difference <= high <= 1.0
    assert low < high


def test_covers_the_true_difference():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        kind = torch.multinomial(
            torch.tensor([0.4, 0.25, 0.1, 0.25]), 40, True, generator=generator
        )
        low, high = paired_difference_interval(kind <= 1, (kind == 0) | (kind == 2))
        covered += low <= 0.15 <= high
    assert 0.92 <= covered / 400 <= 0.99


YES = torch.ones(3, dtype=torch.bool)
BROKEN = [
    (
        ValueError,
        (YES, YES[:2]),
        "b has shape [2] and a has shape [3]; expected the same shape.",
    ),
    (
        TypeError,
        (YES, YES.float()),
        "b has dtype torch.float32; expected torch.bool. Convert it with b.bool().",
    ),
    (
        ValueError,
        (YES[:0], YES[:0]),
        "a has shape [0]; expected at least one pair of outcomes.",
    ),
    (ValueError, (YES, YES, 1.0), "confidence is 1.0; expected a number in (0, 1), as 0.95."),
]


@pytest.mark.parametrize(("error", "arguments", "message"), BROKEN)
def test_broken_inputs(error, arguments, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        paired_difference_interval(*arguments)
