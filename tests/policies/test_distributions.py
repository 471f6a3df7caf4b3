import re

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torchrl.data.vla import UniformActionTokenizer

from rftf_torchrl import ChunkCategorical, ChunkNormal

EXECUTED = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])


def normal(executed=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(3, 3, 2, generator=generator)
    scale = torch.rand(3, 3, 2, generator=generator) + 0.2
    return ChunkNormal(loc, scale, executed)


def categorical(executed=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 3, 2, 5, generator=generator)
    return ChunkCategorical(logits, -1.0, 1.0, executed)


def test_normal_is_the_stock_normal_when_every_action_is_executed():
    ours = normal()
    stock = Independent(Normal(ours.loc, ours.scale), 2)
    value = ours.sample()
    torch.testing.assert_close(ours.log_prob(value), stock.log_prob(value))
    torch.testing.assert_close(ours.entropy(), stock.entropy())
    other = normal(seed=1)
    torch.testing.assert_close(
        kl_divergence(ours, other),
        kl_divergence(stock, Independent(Normal(other.loc, other.scale), 2)),
    )


@pytest.mark.parametrize("make", [normal, categorical])
def test_shapes(make):
    dist = make(EXECUTED)
    assert (dist.batch_shape, dist.event_shape) == ((3,), (3, 2))
    for sample_shape in [(), (4,), (4, 5)]:
        sample = dist.sample(sample_shape)
        assert sample.shape == (*sample_shape, 3, 3, 2)
        assert dist.log_prob(sample).shape == (*sample_shape, 3)
    assert dist.entropy().shape == (3,)
    for name in ("mean", "mode", "deterministic_sample"):
        assert getattr(dist, name).shape == (3, 3, 2)


@pytest.mark.parametrize("make", [normal, categorical])
def test_actions_that_were_not_executed_do_not_count(make):
    masked, full = make(EXECUTED), make()
    value = full.sample()
    short = make()
    if make is normal:
        first = ChunkNormal(short.loc[1:2, :1], short.scale[1:2, :1])
    else:
        first = ChunkCategorical(short.logits[1:2, :1])
    other = make(seed=1)
    for statistic in (
        lambda dist: dist.log_prob(value),
        lambda dist: dist.entropy(),
        lambda dist: kl_divergence(dist, other),
    ):
        got, whole = statistic(masked), statistic(full)
        torch.testing.assert_close(got[0], whole[0])
        assert got[2] == 0
    torch.testing.assert_close(masked.log_prob(value)[1], first.log_prob(value[1:2, :1])[0])
    torch.testing.assert_close(masked.entropy()[1], first.entropy()[0])


@pytest.mark.parametrize("make", [normal, categorical])
def test_non_finite_values_of_unexecuted_actions_have_no_influence(make):
    dist = make(EXECUTED)
    value = dist.sample()
    expected = dist.log_prob(value)
    if make is normal:
        value[1, 1:] = float("nan")
        assert torch.equal(dist.log_prob(value), expected)
    else:
        value[1, 1:] = 100.0
        assert torch.equal(dist.log_prob(value), expected)


@pytest.mark.parametrize("make", [normal, categorical])
def test_divergence_matches_monte_carlo(make):
    torch.manual_seed(0)
    p, q = make(EXECUTED), make(EXECUTED, seed=1)
    sample = p.sample((20_000,))
    log_ratio = p.log_prob(sample) - q.log_prob(sample)
    error = log_ratio.std(0) / 20_000**0.5
    assert ((log_ratio.mean(0) - kl_divergence(p, q)).abs() <= 4 * error).all()
    assert torch.equal(kl_divergence(p, p), torch.zeros(3))


@pytest.mark.parametrize("make", [normal, categorical])
def test_entropy_matches_monte_carlo(make):
    torch.manual_seed(0)
    dist = make(EXECUTED)
    surprise = -dist.log_prob(dist.sample((20_000,)))
    error = surprise.std(0) / 20_000**0.5
    assert ((surprise.mean(0) - dist.entropy()).abs() <= 4 * error).all()


def test_rsample_carries_gradients_and_sample_does_not():
    loc = torch.zeros(1, 2, 2, requires_grad=True)
    dist = ChunkNormal(loc, torch.ones(1, 2, 2))
    dist.rsample().sum().backward()
    assert torch.equal(loc.grad, torch.ones(1, 2, 2))
    assert not dist.sample().requires_grad


def test_half_precision_parameters_give_float32_results():
    half = torch.zeros(2, 3, 2, dtype=torch.bfloat16)
    assert ChunkNormal(half, half + 1).log_prob(half).dtype == torch.float32
    logits = torch.zeros(2, 3, 2, 5, dtype=torch.bfloat16)
    assert ChunkCategorical(logits).log_prob(half).dtype == torch.float32


def test_bins_are_those_of_torchrl():
    tokenizer = UniformActionTokenizer(11, low=-1.0, high=1.0)
    dist = ChunkCategorical(torch.zeros(1, 50, 4, 11))
    value = torch.rand(1, 50, 4) * 2.4 - 1.2
    assert torch.equal(dist.tokens(value), tokenizer.encode(value))
    torch.testing.assert_close(dist.centres, tokenizer.decode(torch.arange(11)))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-1.1, 1.1), (0.0, 7.0)])
def test_samples_are_bin_centres_and_return_to_their_bin(low, high):
    dist = ChunkCategorical(torch.zeros(8, 3, 2, 11), low, high)
    sample = dist.sample()
    assert torch.equal(dist.centres[dist.tokens(sample)], sample)
    assert torch.equal(dist.tokens(dist.centres.expand(1, 1, 11)), torch.arange(11)[None, None])


def test_widened_range_has_its_outermost_centres_at_one():
    centres = ChunkCategorical(torch.zeros(1, 1, 11), -1.1, 1.1).centres
    torch.testing.assert_close(centres, torch.linspace(-1, 1, 11))


def test_categorical_by_hand():
    probabilities = torch.tensor([[[[0.5, 0.25, 0.25]], [[0.1, 0.2, 0.7]]]])
    dist = ChunkCategorical(probabilities.log(), -3.0, 3.0)
    value = torch.tensor([[[-2.0], [2.0]]])
    torch.testing.assert_close(dist.log_prob(value), torch.tensor([0.35]).log())
    assert torch.equal(dist.deterministic_sample, value)
    torch.testing.assert_close(dist.mean, torch.tensor([[[-0.5], [1.2]]]))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: ChunkNormal(torch.zeros(2, 3), torch.ones(2, 2)),
            "loc and scale must have one shape, got (2, 3) and (2, 2).",
        ),
        (
            lambda: ChunkNormal(torch.zeros(4, 2, 3), torch.ones(4, 2, 3), torch.ones(4, 3)),
            "executed must have shape (4, 2) (batch and chunk size), got (4, 3).",
        ),
        (
            lambda: ChunkCategorical(torch.zeros(4, 2, 3, 5), executed=torch.ones(4, 2, 1)),
            "executed must have shape (4, 2) (batch and chunk size), got (4, 2, 1).",
        ),
        (
            lambda: ChunkCategorical(torch.zeros(2, 3, 5), 1.0, 1.0),
            "high must be above low, got low=1.0 and high=1.0.",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()
