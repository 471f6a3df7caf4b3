"""A policy's fingerprint is of all that decides how it acts."""

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
    ],
    ids=repr,
)
def test_what_decides_and_is_no_weight_changes_it(scales):
    one, other = scales
    assert policy_digest(Scaled(one)) == policy_digest(Scaled(type(one)(one)))
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
