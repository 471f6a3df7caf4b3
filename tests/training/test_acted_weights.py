"""The weights with which a policy acted."""

import torch
from torch import nn

from rftf_torchrl.training.acted_weights import ActedWeights


def made():
    policy = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    policy[0].bias.requires_grad_(False)
    return policy


def test_a_policy_gets_earlier_weights_for_a_while():
    policy = made()
    acted = ActedWeights(policy)
    before = policy[0].weight.detach().clone()
    with torch.no_grad():
        policy[0].weight.add_(1)
        policy[1].running_mean.add_(1)
    with acted():
        assert torch.equal(policy[0].weight, before)
        assert torch.equal(policy[1].running_mean, torch.zeros(2))
    assert torch.equal(policy[0].weight, before + 1)
    acted.keep()
    with acted():
        assert torch.equal(policy[0].weight, before + 1)


def test_weights_that_never_change_are_not_kept():
    assert "0.bias" not in ActedWeights(made()).state_dict()


def test_they_go_into_a_checkpoint():
    policy = made()
    state = {name: tensor + 1 for name, tensor in ActedWeights(policy).state_dict().items()}
    acted = ActedWeights(policy)
    acted.load_state_dict(state)
    with acted():
        assert torch.equal(policy[0].weight, state["0.weight"])
