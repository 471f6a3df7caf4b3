"""Noise of each row of a batch: which operators can be divided into rows, and which can not."""

import re

import pytest
import torch
from every_policy import POLICIES, every_policy, states
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl.envs.row_noise import decide
from rftf_torchrl.policies.call_on_tensors import leaves

ADVICE = (
    "In a batch of decisions each row has noise of its own, so that an episode does not depend on "
    "those beside it: draw with torch's functions, without a generator, and with the batch as the "
    "first dimension; or set collector.batch=1, with the policy on a CPU."
)
SEEDS = [3, 1, 4]


def drawn(draw, rows=(0, 1, 2)):
    """What a policy writes that draws so, for some of three rows."""
    policy = TensorDictModule(draw, in_keys=["state"], out_keys=["action"])
    state = torch.linspace(0.1, 0.9, 6).view(3, 2)[list(rows)]
    seeds = [SEEDS[row] for row in rows]
    return decide(policy, {"state": state}, seeds, deterministic=False)


DRAWS = {
    "randn": lambda s: torch.randn(len(s), 3),
    "rand": lambda s: torch.rand(len(s)),
    "rand of a dtype": lambda s: torch.rand((len(s), 2), dtype=torch.float64),
    "randint": lambda s: torch.randint(9, (len(s), 4)),
    "randint from": lambda s: torch.randint(-5, 9, (len(s), 4)),
    "randn_like": torch.randn_like,
    "rand_like": torch.rand_like,
    "randint_like": lambda s: torch.randint_like(s, 50),
    "normal": lambda s: torch.normal(s, s),
    "normal, numbers": lambda s: torch.normal(1.0, 2.0, (len(s), 2)),
    "normal, a number": lambda s: torch.normal(s, 2.0),
    "normal_": lambda s: torch.empty_like(s).normal_(1, 2),
    "uniform_": lambda s: s.clone().uniform_(-1, 1),
    "exponential_": lambda s: torch.empty_like(s).exponential_(),
    "bernoulli": torch.bernoulli,
    "bernoulli_": lambda s: torch.empty(len(s), 8).bernoulli_(0.5),
    "bernoulli_ of numbers": lambda s: torch.empty_like(s).bernoulli_(s),
    "random_": lambda s: torch.empty_like(s).random_(0, 100),
    "multinomial": lambda s: s.repeat(1, 8).multinomial(1),
    "multinomial, rows of rows": lambda s: (
        s.repeat_interleave(4, 0).multinomial(9, True).view(len(s), -1)
    ),
    "poisson": lambda s: torch.poisson(10 * s),
    "gamma": lambda s: torch.distributions.Gamma(s, s).sample(),
    "dirichlet": lambda s: torch.distributions.Dirichlet(s).sample(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_row_draws_what_it_draws_alone(draw):
    together = drawn(draw)["action"]
    parts = together.chunk(3)
    for row in range(3):
        assert torch.equal(parts[row], drawn(draw, [row])["action"])
    other = drawn(draw, [2, 0, 1])["action"].chunk(3)
    assert all(map(torch.equal, other, (parts[2], parts[0], parts[1])))
    assert not (torch.equal(parts[0], parts[1]) and torch.equal(parts[1], parts[2]))


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy(name):
    torch.manual_seed(0)
    policy = every_policy(name).eval()
    data = leaves(states(4).select(*policy.in_keys, strict=False))
    together = decide(policy, data, [5, 6, 7, 8], deterministic=False)
    for row in range(4):
        one = {key: each[row : row + 1] for key, each in data.items()}
        alone = decide(policy, one, [5 + row], deterministic=False)
        here = {key: each[row : row + 1] for key, each in together.items()}
        torch.testing.assert_close(alone, here, atol=1e-4, rtol=1e-4)


REFUSED = {
    "samples before rows": (
        lambda s: torch.distributions.Normal(s, s).sample((4,)),
        "the policy draws random numbers by aten.normal.Tensor_Tensor of shape [4, 3, 2] for 3 "
        f"decisions. {ADVICE}",
    ),
    "one number for all": (
        lambda s: torch.rand(()) + s,
        "the policy draws random numbers by aten.rand.default of shape [] for 3 decisions. "
        f"{ADVICE}",
    ),
    "a generator of its own": (
        lambda s: torch.rand(3, generator=torch.Generator()),
        "the policy draws random numbers by aten.rand.generator of shape [3] for 3 decisions. "
        f"{ADVICE}",
    ),
    "an order": (
        lambda s: torch.randperm(3),
        "the policy draws random numbers by aten.randperm.default of shape [] for 3 decisions. "
        f"{ADVICE}",
    ),
    "dropout": (
        nn.Dropout(0.5),
        "the policy draws random numbers by a function that is not among torch's elementary ones, "
        f"such as dropout. {ADVICE}",
    ),
}


@pytest.mark.parametrize(("draw", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_rows_is_refused(draw, message):
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        drawn(draw)


def test_one_row_may_draw_as_it_likes():
    first, again = (drawn(nn.Dropout(0.5), [1])["action"] for _ in range(2))
    assert torch.equal(first, again)


def test_a_compiled_network_draws_the_same():
    policy = every_policy("flow").eval()
    data = leaves(states(4))
    plain = decide(policy, data, [1, 2, 3, 4], deterministic=False)
    policy.head.velocity.compile(backend="eager")
    compiled = decide(policy, data, [1, 2, 3, 4], deterministic=False)
    assert plain.keys() == compiled.keys()
    assert all(torch.equal(plain[key], compiled[key]) for key in plain)
