"""A policy's fingerprint is of all that decides how it acts."""

import pytest
import torch

from rftf_torchrl import EncoderConfig, PolicySpec
from rftf_torchrl.evaluation.fingerprint import policy_digest


def digest_of(seed=0, **options):
    torch.manual_seed(seed)
    encoder = EncoderConfig(image_size=None, state_dim=3, features=8)
    return policy_digest(PolicySpec(encoder, 2, 4, head="flow", **options).build())


def test_it_is_the_same_for_the_same_policy():
    assert digest_of() == digest_of()


@pytest.mark.parametrize("change", [{"seed": 1}, {"flow_steps": 5}, {"flow_level": 0.25}])
def test_weights_and_settings_change_it(change):
    assert digest_of(**change) != digest_of()
