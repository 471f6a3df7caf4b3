"""Steps that lose value and calibration, against scikit-learn, SciPy and hand-computed numbers."""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from rftf_torchrl import calibration_curve, calibration_error, negative_step_share


def test_negative_steps_by_hand():
    assert negative_step_share(torch.arange(5.0)).item() == 0
    assert negative_step_share(-torch.arange(5.0)).item() == 1
    assert negative_step_share(torch.ones(5)).item() == 0
    rows = torch.tensor([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0]])
    assert negative_step_share(rows).item() == pytest.approx((0.5 + 1.0) / 2)


@pytest.mark.parametrize("ties", [False, True])
def test_negative_steps_match_numpy_with_padding_anywhere(ties):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    values = values.round() if ties else values
    mask = torch.rand(8, 12, generator=generator) < 0.6
    mask[:, 4:7] = True
    mask[0] = torch.arange(12) == 3
    rows = [np.diff(values[row][mask[row]].numpy()) < 0 for row in range(1, 8)]
    expected = np.mean([row.mean() for row in rows])
    padded = torch.where(mask, values, torch.full_like(values, float("nan")))
    assert negative_step_share(padded, mask).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_curve_is_scikit_learns_for_outcomes(ties):
    calibration = pytest.importorskip("sklearn.calibration")
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(300, generator=generator, dtype=torch.float64)
    values = values.round(decimals=1) if ties else values
    outcome = (torch.rand(300, generator=generator) < values).double()
    true, predicted = calibration.calibration_curve(outcome.numpy(), values.numpy(), n_bins=8)
    value, progress, frames = calibration_curve(values, outcome, bins=8)
    filled = frames > 0
    np.testing.assert_allclose(value[filled], predicted)
    np.testing.assert_allclose(progress[filled], true)


def test_curve_is_scipys_binned_mean():
    generator = torch.Generator().manual_seed(2)
    values, progress = torch.rand(2, 200, generator=generator, dtype=torch.float64)
    expected = stats.binned_statistic(values, progress, "mean", bins=5, range=(0, 1)).statistic
    _, found, frames = calibration_curve(values, progress, bins=5)
    np.testing.assert_allclose(found, expected)
    assert frames.sum() == 200


def test_values_outside_the_unit_interval_join_the_end_bins():
    values = torch.tensor([-3.0, 0.1, 0.5, 2.0])
    progress = torch.tensor([0.0, 0.2, 0.5, 1.0])
    value, found, frames = calibration_curve(values, progress, bins=4)
    assert frames.tolist() == [2, 1, 0, 1]
    torch.testing.assert_close(value[[0, 1, 3]], torch.tensor([-1.45, 0.5, 2.0]))
    torch.testing.assert_close(found[[0, 1, 3]], torch.tensor([0.1, 0.5, 1.0]))
    assert value[2].isnan()
    assert found[2].isnan()
    assert calibration_error(values, progress, bins=4).item() == pytest.approx((3.1 + 0 + 1) / 4)


def test_error_of_constant_values_is_their_distance_from_the_mean_progress():
    progress = torch.linspace(0, 1, 11)
    assert calibration_error(torch.full((11,), 0.7), progress).item() == pytest.approx(0.2)


def test_error_is_at_most_the_mean_deviation():
    values, progress = torch.rand(2, 100)
    assert calibration_error(values, progress) <= (values - progress).abs().mean() + 1e-6


BROKEN = [
    ([0.1], [0.1, 0.2], 3, "progress has shape [2] and values has shape [1]; expected the same "
     "shape."),
    ([], [], 3, "values is empty; calibration needs at least one frame."),
    ([0.1], [0.1], 0, "bins is 0; expected at least 1."),
    ([0.1, 0.2], [0.0, 1.5], 3, "progress goes from 0 to 1.5; expected numbers in [0, 1]."),
    ([0.1, float("nan")], [0.0, 1.0], 3, "values[1] is nan; expected finite numbers (1 of 2 "
     "entries are not)."),
]  # fmt: skip


@pytest.mark.parametrize(("values", "progress", "bins", "message"), BROKEN)
@pytest.mark.parametrize("function", [calibration_curve, calibration_error])
def test_broken_input(function, values, progress, bins, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        function(torch.tensor(values), torch.tensor(progress), bins)
