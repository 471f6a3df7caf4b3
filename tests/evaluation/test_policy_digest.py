"""A policy's fingerprint is of all that decides how it acts."""

import threading
from copy import copy, deepcopy
from dataclasses import dataclass
from enum import Enum
from functools import partial

import pytest
import torch
from torch import nn

from rftf_torchrl import EncoderConfig, PolicySpec
from rftf_torchrl.evaluation.fingerprint import function_name, policy_digest


def digest_of(seed=0, **options):
    torch.manual_seed(seed)
    encoder = EncoderConfig(image_size=None, state_dim=3, features=8)
    return policy_digest(PolicySpec(encoder, 2, 4, head="flow", **options).build())


def test_it_is_the_same_for_the_same_policy():
    assert digest_of() == digest_of()


@pytest.mark.parametrize("change", [{"seed": 1}, {"flow_steps": 5}, {"flow_level": 0.25}])
def test_weights_and_settings_change_it(change):
    assert digest_of(**change) != digest_of()


class Unit(Enum):
    METRES = 1
    FEET = 2


@dataclass(frozen=True)
class Gain:
    factor: float


class Hidden:
    """Made of nothing that is public."""

    def __init__(self, where):
        self._where = where

    def __repr__(self):
        return f"Hidden({self._where!r})"


class Scaled(nn.Linear):
    """A layer that is told how to scale by something that is no weight."""

    def __init__(self, scale, saved=True):
        torch.manual_seed(0)
        super().__init__(2, 1)
        if isinstance(scale, torch.Tensor):
            self.register_buffer("scale", scale, persistent=saved)
        else:
            self.scale = scale


@pytest.mark.parametrize(
    "scales",
    [
        ([1.0, 2.0], [1.0, 3.0]),
        ((1.0,), (2.0,)),
        ({"arm": 1.0, "hand": [1]}, {"arm": 1.0, "hand": [2]}),
        ({1.0}, {2.0}),
        (Unit.METRES, Unit.FEET),
        (torch.float16, torch.float32),
        (Gain(1.0), Gain(2.0)),
        (partial(max, 1.0), partial(max, 2.0)),
        (max, min),
    ],
    ids=repr,
)
def test_what_decides_and_is_no_weight_changes_it(scales):
    one, other = scales
    assert policy_digest(Scaled(one)) == policy_digest(Scaled(copy(one)))
    assert policy_digest(Scaled(one)) != policy_digest(Scaled(other))


@pytest.mark.parametrize("saved", [True, False])
def test_every_buffer_changes_it(saved):
    digests = {policy_digest(Scaled(torch.tensor([scale]), saved)) for scale in (1.0, 1.0, 2.0)}
    assert len(digests) == 2


def test_a_functions_name_has_no_address():
    named = partial(digest_of, "a", head=digest_of, other=Scaled)
    assert function_name(named) == (
        f"digest_of('a', head='{__name__}.digest_of', other='{__name__}.Scaled')"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (Unit.METRES, Unit.FEET),
        (torch.device("cpu"), torch.device("meta")),
        (torch.float16, torch.float32),
        (range(3), range(4)),
        (Hidden("a"), Hidden("b")),
        (Gain(1.0), Gain(2.0)),
    ],
    ids=repr,
)
def test_bound_arguments_of_any_kind_are_told_apart(arguments):
    one, other = (function_name(partial(digest_of, argument)) for argument in arguments)
    assert one != other
    assert one == function_name(partial(digest_of, deepcopy(arguments[0])))
    assert "0x" not in one


def test_a_callable_object_is_named_by_what_it_is_made_of():
    assert function_name(Scale(1.0)) == function_name(Scale(1.0)) != function_name(Scale(2.0))


@dataclass(frozen=True)
class Scale:
    factor: float

    def __call__(self, value):
        return self.factor * value


def test_what_has_an_address_alone_has_the_same_name_each_time():
    one, other = (function_name(partial(digest_of, threading.Lock())) for _ in range(2))
    assert one == other
    assert "0x" not in one
