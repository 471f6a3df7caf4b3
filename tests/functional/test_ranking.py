"""temporal_ranking_loss against a slow reference, identities and broken inputs."""

import math
import re

import pytest
import torch

from rftf_torchrl import temporal_ranking_loss


def slow_loss(values, mask):
    rows = []
    for row, valid in zip(values.tolist(), mask.tolist(), strict=True):
        real = [value for value, keep in zip(row, valid, strict=True) if keep]
        terms = [
            math.log(1 / (1 + math.exp(real[i] - real[j])))
            for i in range(len(real))
            for j in range(i + 1, len(real))
        ]
        if terms:
            rows.append(-sum(terms) / len(terms))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("seed", range(5))
def test_matches_double_loop_with_padding(seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 9, generator=generator) < 0.6
    mask[0] = False
    mask[1] = torch.arange(9) == 3
    mask[2] = True
    assert temporal_ranking_loss(values, mask).item() == pytest.approx(slow_loss(values, mask))


def test_hand_computed():
    # pairs (0,1), (0,2), (1,2) have differences 1, 3, 2
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-3)) + math.log1p(math.exp(-2))) / 3
    loss = temporal_ranking_loss(torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64))
    assert loss.item() == pytest.approx(expected)
    assert loss.shape == ()


def test_two_frames_is_binary_cross_entropy():
    values = torch.randn(7, 2, dtype=torch.float64)
    logits = values[:, 1] - values[:, 0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    torch.testing.assert_close(temporal_ranking_loss(values), expected)


def test_constant_row_is_log_2_and_shift_changes_nothing():
    values = torch.randn(3, 5, dtype=torch.float64)
    assert temporal_ranking_loss(torch.ones(4)).item() == pytest.approx(math.log(2))
    torch.testing.assert_close(temporal_ranking_loss(values), temporal_ranking_loss(values + 7.0))


def test_rows_average_over_any_leading_shape():
    values = torch.randn(2, 3, 5, dtype=torch.float64)
    rows = [temporal_ranking_loss(row) for row in values.reshape(-1, 5)]
    torch.testing.assert_close(temporal_ranking_loss(values), torch.stack(rows).mean())


def test_padding_has_no_influence_and_no_gradient():
    values = torch.tensor([[0.0, 1.0, math.nan], [2.0, math.inf, 1.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    loss = temporal_ranking_loss(values, mask)
    loss.backward()
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(1.0))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert values.grad[~mask].tolist() == [0.0, 0.0]
    assert torch.isfinite(values.grad).all()


def test_gradient_matches_finite_differences():
    values = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, False, True, True]])
    assert torch.autograd.gradcheck(lambda v: temporal_ranking_loss(v, mask), values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_is_computed_in_float32(dtype):
    values = torch.randn(4, 6).to(dtype)
    loss = temporal_ranking_loss(values)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, temporal_ranking_loss(values.float()))


def test_large_differences_stay_finite():
    assert temporal_ranking_loss(torch.tensor([1e4, -1e4])).item() == pytest.approx(2e4)
    assert temporal_ranking_loss(torch.tensor([-1e4, 1e4])).item() == 0.0


BROKEN = [
    (
        ValueError,
        torch.zeros(2, 3),
        torch.ones(2, 4, dtype=torch.bool),
        "mask has shape [2, 4] and values has shape [2, 3]; expected the same shape.",
    ),
    (
        TypeError,
        torch.zeros(2, 3),
        torch.ones(2, 3),
        "mask has dtype torch.float32; expected torch.bool. Convert it with mask.bool().",
    ),
    (
        TypeError,
        torch.zeros(2, 3, dtype=torch.int64),
        None,
        "values has dtype torch.int64; expected a floating dtype. Convert it with values.float().",
    ),
    (
        ValueError,
        torch.tensor(1.0),
        None,
        "values has shape []; expected [..., n] with the frames in time order.",
    ),
    (
        ValueError,
        torch.tensor([[0.0, 1.0], [0.0, math.inf]]),
        None,
        "values[1, 1] is inf; expected finite numbers (1 of 4 entries are not).",
    ),
    (
        ValueError,
        torch.zeros(2, 3),
        torch.tensor([[True, False, False], [False, False, False]]),
        "values has shape [2, 3] and no row with two real frames; an order needs at least one "
        "pair. Check the mask (True = real frame) or pass longer trajectories.",
    ),
    (
        ValueError,
        torch.zeros(2, 0),
        None,
        "values has shape [2, 0] and no row with two real frames; an order needs at least one "
        "pair. Check the mask (True = real frame) or pass longer trajectories.",
    ),
]


@pytest.mark.parametrize(("error", "values", "mask", "message"), BROKEN)
def test_broken_inputs(error, values, mask, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        temporal_ranking_loss(values, mask)


def places_of(values):
    return torch.arange(values.shape[-1], dtype=torch.float64).expand_as(values)


def test_places_by_hand():
    values, places = torch.tensor([1.0, 3.0]).double(), torch.tensor([0.0, 0.5]).double()
    target = 1 / (1 + math.exp(-0.5))
    expected = target * math.log1p(math.exp(-2)) + (1 - target) * math.log1p(math.exp(2))
    assert temporal_ranking_loss(values, places=places).item() == pytest.approx(expected)


def test_far_places_ask_for_order_alone():
    values = torch.randn(5, 6, dtype=torch.float64)
    order = temporal_ranking_loss(values)
    losses = [temporal_ranking_loss(values, places=k * places_of(values)) for k in (1, 10, 1000)]
    assert (losses[0] - order).abs() > (losses[1] - order).abs()
    assert losses[2].item() == order.item()


def test_one_place_for_all_asks_for_one_value():
    values = torch.randn(3, 5, dtype=torch.float64)
    places = torch.zeros_like(values)
    forth, back = (temporal_ranking_loss(v, places=places) for v in (values, values.flip(-1)))
    torch.testing.assert_close(forth, back)
    assert forth > math.log(2)
    assert temporal_ranking_loss(places, places=places).item() == pytest.approx(math.log(2))


def test_the_loss_is_least_where_values_are_places():
    places = torch.randn(4, 6, dtype=torch.float64)
    values = (places + 3.0).requires_grad_()
    least = temporal_ranking_loss(values, places=places)
    (gradient,) = torch.autograd.grad(least, values)
    assert gradient.abs().max() < 1e-12
    assert temporal_ranking_loss(1.1 * places, places=places) > least


def test_places_of_padding_have_no_influence():
    values, places = torch.randn(2, 4), torch.rand(2, 4)
    mask = torch.tensor([[True] * 3 + [False], [False, True, True, True]])
    expected = temporal_ranking_loss(values, mask, places=places)
    broken = torch.where(mask, places, math.nan)
    assert torch.equal(temporal_ranking_loss(values, mask, places=broken), expected)


@pytest.mark.parametrize(
    ("error", "places", "message"),
    [
        (
            ValueError,
            torch.zeros(2, 4),
            "places has shape [2, 4] and values has shape [2, 3]; expected the same shape.",
        ),
        (
            ValueError,
            torch.tensor([[0.0, 1.0, 2.0], [0.0, math.nan, 1.0]]),
            "places[1, 1] is nan; expected finite numbers (1 of 6 entries are not).",
        ),
        (
            TypeError,
            torch.zeros(2, 3, dtype=torch.int64),
            "places has dtype torch.int64; expected a floating dtype. Convert it with "
            "places.float().",
        ),
    ],
)
def test_broken_places(error, places, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        temporal_ranking_loss(torch.zeros(2, 3), places=places)
