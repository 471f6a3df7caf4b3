"""Training and test states: seeded, inside the space, and never the same."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rftf_torchrl import GoalSampler
from rftf_torchrl.metaworld.goals import CELLS

LOW, HIGH = np.array([-0.1, 0.5, 0.0]), np.array([0.2, 0.9, 0.0])


def cells_of(vector: np.ndarray) -> np.ndarray:
    """Undo the drawing: the cell of each varying dimension."""
    return np.floor((vector - LOW)[:2] / (HIGH - LOW)[:2] * CELLS).astype(int)


def drawn(split: str, *seeds: int) -> np.ndarray:
    sampler = GoalSampler(LOW, HIGH, split)
    sampler.reseed(*seeds)
    return sampler.draw()


seeds = st.integers(0, 2**63 - 1)


@settings(deadline=None)
@given(seeds, seeds)
def test_training_draws_even_cells_and_testing_odd_ones(task, seed):
    for split, parity in (("train", 0), ("test", 1)):
        vector = drawn(split, task, seed)
        assert (cells_of(vector) % 2 == parity).all()
        assert (vector >= LOW).all()
        assert (vector <= HIGH).all()
        assert vector[2] == LOW[2]


def test_the_two_splits_share_no_cell_and_no_neighbourhood():
    train = np.stack([drawn("train", seed) for seed in range(300)])
    test = np.stack([drawn("test", seed) for seed in range(300)])
    cells = [{tuple(cells_of(vector)) for vector in half} for half in (train, test)]
    assert [len(half) for half in cells] == [300, 300]
    assert not cells[0] & cells[1]
    same_seed = np.abs(train - test)[:, :2] / (HIGH - LOW)[:2]
    assert np.median(same_seed) > 0.1


@given(seeds)
def test_seeds_decide_the_whole_sequence(seed):
    first, second = GoalSampler(LOW, HIGH, "train"), GoalSampler(LOW, HIGH, "train")
    second.draw()
    first.reseed(1, seed)
    second.reseed(1, seed)
    for _ in range(3):
        assert (first.draw() == second.draw()).all()
    second.reseed(2, seed)
    assert (first.draw() != second.draw())[:2].any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_draws_cover_the_space_alike(split):
    sampler = GoalSampler(LOW, HIGH, split)
    draws = np.stack([sampler.draw() for _ in range(4000)])[:, :2]
    share = (draws - LOW[:2]) / (HIGH - LOW)[:2]
    assert share.mean(0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert share.min(0) == pytest.approx([0.0, 0.0], abs=0.01)
    assert share.max(0) == pytest.approx([1.0, 1.0], abs=0.01)


@pytest.mark.parametrize(
    ("high", "split", "message"),
    [
        (HIGH, "validation", "split must be 'train' or 'test', got 'validation'"),
        (
            LOW,
            "train",
            "the reset space has one point, [-0.1, 0.5, 0.0]: training and test states would be "
            "the same; choose another task",
        ),
    ],
)
def test_bad_arguments(high, split, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GoalSampler(LOW, high, split)
