"""A policy called on tensors writes what it writes to a TensorDict, bit for bit."""

import re

import pytest
import torch
from every_policy import POLICIES, every_policy, states
from tensordict import TensorDict
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl.policies.call_on_tensors import call_on_tensors, leaves
from rftf_torchrl.policies.heads.distributions import ChunkNormal

MODES = (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC)


def both(module, data, mode=ExplorationType.RANDOM):
    """What is written to tensors, and to a TensorDict."""
    found = leaves(data)
    with torch.inference_mode(), set_exploration_type(mode):
        torch.manual_seed(1)
        call_on_tensors(module, found, data.batch_size)
        torch.manual_seed(1)
        return found, leaves(module(data.clone()))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_writes_the_same(name, mode):
    if name == "stock_mixture" and mode is ExplorationType.DETERMINISTIC:
        pytest.skip("torch's mixture has neither mode nor deterministic sample")
    torch.manual_seed(0)
    policy = every_policy(name).eval()
    data = states(4).select(*policy.in_keys, strict=False)
    found, expected = both(policy, data, mode)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in policy.out_keys)


class Hooked(TensorDictModule):
    """A subclass, which may do anything in its forward."""

    def forward(self, tensordict):
        return super().forward(tensordict).set("more", torch.ones(3, 2))


def hooked():
    module = TensorDictModule(nn.Linear(2, 2), ["a"], ["b"])
    module.register_forward_hook(lambda module, given, out: out.set("b", out["b"] + 1))
    return module


def own_forward():
    module = TensorDictModule(nn.Linear(2, 2), ["a"], ["b"])
    module.forward = lambda tensordict: tensordict.set("b", tensordict["a"] + 1)
    return module


def given_chunk():
    """A network that draws the chunk, of which the distribution gives the log-probability only."""
    network = TensorDictModule(lambda a: (a[..., None], a[..., None]), ["a"], ["loc", "chunk"])
    spread = TensorDictModule(lambda loc: torch.ones_like(loc), ["loc"], ["scale"])
    drawn = ProbabilisticTensorDictModule(
        ["loc", "scale"], ["chunk"], distribution_class=ChunkNormal, return_log_prob=True
    )
    return ProbabilisticTensorDictSequential(network, spread, drawn)


DATA = TensorDict({"a": torch.rand(3, 2), "deep": {"er": torch.rand(3, 2)}}, [3])
SPECIAL = {
    "subclass": lambda: Hooked(nn.Linear(2, 2), ["a"], ["b"]),
    "hook": hooked,
    "own forward": own_forward,
    "given chunk": given_chunk,
    "keywords": lambda: TensorDictModule(lambda *, x: x + 1, {"x": "a"}, ["b"]),
    "method": lambda: TensorDictModule(nn.Linear(2, 2), ["a"], ["b"], method="forward"),
    "dict": lambda: TensorDictModule(lambda x: {"c": x, "b": x + 1}, ["a"], ["b", "c"]),
    "several": lambda: TensorDictModule(lambda x: (x, x + 1), ["a"], ["b", ("deep", "c")]),
    "ignored": lambda: TensorDictModule(lambda x: (x, x + 1), ["a"], ["_", "b"]),
    "TensorDict": lambda: TensorDictModule(lambda x: TensorDict({"x": x}, [3]), ["a"], ["b"]),
    "branch": lambda: TensorDictModule(lambda deep: deep["er"] + 1, ["deep"], ["b"]),
    "none given": lambda: TensorDictModule(lambda x, y: x, ["a", "missing"], ["b"]),
    "chosen": lambda: TensorDictSequential(
        TensorDictModule(nn.Linear(2, 2), ["a"], ["b"]),
        TensorDictModule(nn.Linear(2, 2), ["b"], ["c"]),
        selected_out_keys=["c"],
    ),
    "tolerant": lambda: TensorDictSequential(
        TensorDictModule(nn.Linear(2, 2), ["a"], ["b"]),
        TensorDictModule(nn.Linear(2, 2), ["missing"], ["c"]),
        partial_tolerant=True,
    ),
}


@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL)
def test_what_is_special_writes_the_same(make):
    torch.manual_seed(0)
    found, expected = both(make(), DATA)
    assert set(expected) <= set(found)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_missing_input_is_named_as_by_tensordict():
    message = (
        "Some tensors that are necessary for the module call may not have not been found in the "
        "input tensordict: the following inputs are None: {'x'}."
    )
    module = TensorDictSequential(TensorDictModule(lambda x: x + None, ["x"], ["y"]))
    with pytest.raises(KeyError, match=re.escape(message)):
        call_on_tensors(module, {"a": torch.ones(3)}, torch.Size([3]))
