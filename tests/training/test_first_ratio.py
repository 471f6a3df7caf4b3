"""The rollout and the learner have to be one policy before an iteration's first step."""

import re

import pytest
import torch
from every_policy import POLICIES, decide, every_policy
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from rftf_torchrl import (
    FrozenFeatures,
    RFTFPPOLoss,
    autocast,
    cache_features,
    check_first_ratio,
    gaussian_actor,
)
from rftf_torchrl.errors import UserError

TRAINING = "the policy differs in training mode, as by dropout: call policy.eval(), or set its "
TRAINING += "rates to 0"
PRECISION = "the update computes in bfloat16 and the rollout in float32: set one precision for "
PRECISION += "both, or a larger bound"
FEATURES = "the features that the data keep are not those of the present frozen tower: keep them "
FEATURES += "again, or set ppo.cache_gib=0"
OTHER = "weights that changed after the rollout, or workers that still hold older ones "
OTHER += "(update_policy_weights_); torch.compile on one side only; a padding or mask that one "
OTHER += "side does not see"


def policy(*layers):
    network = nn.Sequential(*layers, nn.Linear(8, 6), nn.Unflatten(-1, (3, 2)))
    tower = FrozenFeatures(TensorDictModule(nn.Linear(5, 8), ["state"], ["features"]))
    mean = TensorDictModule(network, ["features"], ["loc"])
    return gaussian_actor(TensorDictSequential(tower, mean), chunk_size=3, action_dim=2)


@torch.no_grad()
def rollout(actor):
    rows = TensorDict({"state": torch.randn(12, 5)}, [12]).split(1)
    return torch.cat([actor(row) for row in rows]).exclude("features")


def refusal(loss, data, **options):
    with pytest.raises(UserError) as refused:
        check_first_ratio(loss, data, **options)
    error = float(loss.log_ratio(data).abs().max())
    return str(refused.value), error


def message(error, bound, cause):
    return (
        f"the learner's log-probability of a decision differs by up to {error:.3g} from that of "
        f"the rollout, and the bound is {bound:g}: the first ratio of PPO is not 1. No parameter "
        f"was changed. The likely cause: {cause}."
    )


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("functional", [True, False])
def test_dropout(functional):
    actor = policy(nn.Dropout(0.5)).eval()
    data = rollout(actor)
    loss = RFTFPPOLoss(actor, kl_coeff=0, functional=functional)
    assert check_first_ratio(loss, data) < 1e-5
    loss = RFTFPPOLoss(actor.train(), kl_coeff=0, functional=functional)
    text, _ = refusal(loss, data)
    assert text.endswith(f" The likely cause: {TRAINING}.")
    assert loss.actor_network.training, "the modes are as they were"


def test_another_weight():
    actor = policy()
    data = rollout(actor)
    loss = RFTFPPOLoss(actor, kl_coeff=0)
    with torch.no_grad():
        next(p for p in loss.parameters() if p.requires_grad).add_(0.5)
    text, error = refusal(loss, data)
    assert text == message(error, 0.01, OTHER)
    assert check_first_ratio(loss, data, bound=2 * error) == error
    text, _ = refusal(loss, data, bound=error / 2)
    assert text == message(error, error / 2, OTHER)


def test_another_precision():
    actor = policy()
    data = rollout(actor)
    loss = RFTFPPOLoss(actor, kl_coeff=0)
    with autocast("cpu", "bf16"):
        assert 1e-5 < check_first_ratio(loss, data) < 0.1
        text, error = refusal(loss, data, bound=1e-4)
    with autocast("cpu", "bf16"):
        error = float(loss.log_ratio(data).abs().max())
    assert text == message(error, 1e-4, PRECISION)


def test_weights_in_bfloat16_may_be_farther_off():
    actor = policy().to(torch.bfloat16)
    with torch.no_grad():
        states = TensorDict({"state": torch.randn(12, 5).bfloat16()}, [12])
        data = actor(states).exclude("features")
    data["vla_action", "log_probs"] += 0.1
    assert check_first_ratio(RFTFPPOLoss(actor, kl_coeff=0), data) > 0.09


def test_kept_features_of_another_tower():
    actor = policy()
    loss = RFTFPPOLoss(actor, kl_coeff=0)
    data = cache_features(actor, rollout(actor))
    assert check_first_ratio(loss, data) < 1e-5
    data["cache", "features"] += 1
    text, error = refusal(loss, data)
    assert text == message(error, 0.01, FEATURES)


def test_what_is_not_a_number_is_refused():
    actor = policy()
    data = rollout(actor)
    data["vla_action", "log_probs"][3] = torch.nan
    text, _ = refusal(RFTFPPOLoss(actor, kl_coeff=0), data)
    assert text == message(torch.nan, 0.01, OTHER)


def test_padding_does_not_count():
    actor = policy()
    loss = RFTFPPOLoss(actor, kl_coeff=0)
    data = rollout(actor).reshape(3, 4)
    data["vla_action", "log_probs"][:, -1] = 7.0
    with pytest.raises(UserError, match=re.escape(OTHER)):
        check_first_ratio(loss, data)
    data["collector", "mask"] = torch.tensor([True, True, True, False]).expand(3, 4)
    assert check_first_ratio(loss, data) < 1e-5


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_within_the_bound(name):
    actor = every_policy(name)
    loss = RFTFPPOLoss(actor, kl_coeff=0)
    data = torch.cat([decide(actor, 2) for _ in range(4)])
    assert check_first_ratio(loss, data) < 1e-4
    with autocast("cpu", "bf16"):
        check_first_ratio(loss, data)
