"""Order and separation metrics against scipy, scikit-learn and hand-computed numbers."""

import re
from itertools import combinations

import pytest
import torch
from scipy import stats

from rftf_torchrl import kendall_tau, pairwise_accuracy, roc_auc, value_order_correlation

ORDER_METRICS = [pairwise_accuracy, value_order_correlation, kendall_tau]


def slow_pairwise_accuracy(values):
    wins = [1.0 if b > a else 0.5 if b == a else 0.0 for a, b in combinations(values, 2)]
    return sum(wins) / len(wins)


REFERENCES = [
    (pairwise_accuracy, slow_pairwise_accuracy),
    (value_order_correlation, lambda v: stats.spearmanr(v, range(len(v))).statistic),
    (kendall_tau, lambda v: stats.kendalltau(v, range(len(v))).statistic),
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
def test_matches_reference_with_padding(metric, reference, ties):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    if ties:
        values = values.round()
    mask = torch.rand(8, 12, generator=generator) < 0.7
    mask[:, :3] = True
    mask[0, 1:] = False
    values[:, :2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    values = torch.where(mask, values, torch.full_like(values, float("nan")))
    rows = [reference(values[row][mask[row]].tolist()) for row in range(1, 8)]
    expected = sum(rows) / len(rows)
    assert metric(values, mask).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "ordered", "reversed_", "constant"),
    [
        (pairwise_accuracy, 1.0, 0.0, 0.5),
        (value_order_correlation, 1.0, -1.0, 0.0),
        (kendall_tau, 1.0, -1.0, 0.0),
    ],
)
def test_extremes(metric, ordered, reversed_, constant):
    frames = torch.arange(7.0)
    assert metric(frames).item() == pytest.approx(ordered)
    assert metric(-frames).item() == pytest.approx(reversed_)
    assert metric(torch.ones(7)).item() == constant


@pytest.mark.parametrize("metric", ORDER_METRICS)
def test_increasing_transformation_changes_nothing(metric):
    values = torch.randn(4, 10, dtype=torch.float64)
    torch.testing.assert_close(metric(values), metric(values.exp()))


@pytest.mark.parametrize("metric", ORDER_METRICS)
def test_dtype(metric):
    values = torch.randn(3, 5)
    assert metric(values.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(metric(values.bfloat16()), metric(values.bfloat16().float()))


def test_value_order_correlation_is_that_of_argsort_without_ties():
    values = torch.randn(20, dtype=torch.float64)
    expected = stats.spearmanr(values.argsort(), range(20)).statistic
    assert value_order_correlation(values).item() == pytest.approx(expected)


def test_kendall_is_twice_pairwise_accuracy_minus_one_without_ties():
    values = torch.randn(5, 9, dtype=torch.float64)
    torch.testing.assert_close(kendall_tau(values), 2 * pairwise_accuracy(values) - 1)


@pytest.mark.parametrize("metric", ORDER_METRICS)
def test_broken_values(metric):
    message = "values[1] is nan; expected finite numbers (1 of 2 entries are not)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        metric(torch.tensor([0.0, float("nan")]))
    message = "mask has shape [3] and values has shape [2]; expected the same shape."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        metric(torch.zeros(2), torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("decimals", [0, 3])
def test_auc_is_mann_whitney(decimals):
    generator = torch.Generator().manual_seed(decimals)
    scores = torch.randn(200, generator=generator, dtype=torch.float64).round(decimals=decimals)
    labels = torch.rand(200, generator=generator) < 0.3
    statistic = stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    expected = statistic / (labels.sum().item() * (~labels).sum().item())
    assert roc_auc(scores, labels).item() == pytest.approx(expected, abs=1e-12)


def test_auc_matches_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = torch.randn(4, 25).round(decimals=1), torch.rand(4, 25) < 0.5
    labels[0, :2] = torch.tensor([True, False])
    expected = metrics.roc_auc_score(labels.flatten(), scores.flatten())
    assert roc_auc(scores, labels).item() == pytest.approx(expected, abs=1e-6)


def test_auc_of_constant_scores_and_of_negated_scores():
    labels = torch.tensor([True, False, False, True, False])
    scores = torch.tensor([0.3, 0.1, 0.7, 0.7, 0.2])
    assert roc_auc(torch.zeros(5), labels).item() == 0.5
    assert roc_auc(scores, labels).item() == pytest.approx(4.5 / 6)
    assert roc_auc(-scores, labels).item() == pytest.approx(1.5 / 6)


BROKEN = [
    (
        ValueError,
        torch.zeros(3),
        torch.ones(3, dtype=torch.bool),
        "labels has 3 positives and 0 negatives; the area under the ROC curve needs at least one "
        "of each.",
    ),
    (
        ValueError,
        torch.zeros(3),
        torch.ones(2, dtype=torch.bool),
        "labels has shape [2] and scores has shape [3]; expected the same shape.",
    ),
    (
        TypeError,
        torch.zeros(2),
        torch.tensor([0, 1]),
        "labels has dtype torch.int64; expected torch.bool. Convert it with labels.bool().",
    ),
    (
        ValueError,
        torch.tensor([0.0, float("-inf")]),
        torch.tensor([True, False]),
        "scores[1] is -inf; expected finite numbers (1 of 2 entries are not).",
    ),
]


@pytest.mark.parametrize(("error", "scores", "labels", "message"), BROKEN)
def test_broken_auc(error, scores, labels, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        roc_auc(scores, labels)
