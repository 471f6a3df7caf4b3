"""Which network, value function and reward each critic has."""

import re

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rftf_torchrl import Advantages, EncoderConfig, ObservationSizes, PolicySpec, make_critic

SIZES = ObservationSizes(state_dim=5)


def batch() -> TensorDict:
    """Two trajectories of two decisions from one state; the first succeeds."""
    torch.manual_seed(0)
    end = torch.tensor([[False], [True], [False], [True]])
    success = torch.tensor([[False], [True], [False], [False]])
    state = torch.randn(5, 5)
    state[2] = state[0]
    following = {
        "observation": {"state": torch.randn(4, 5)},
        "reward": torch.tensor([[0.5], [0.25], [0.5], [-0.5]]),
        "outcome_reward": success.float(),
        "temporal_value": torch.tensor([[0.5], [1.0], [0.25], [0.0]]),
        "done": end,
        "terminated": end & success,
    }
    data = {
        "observation": {"state": state[:4]},
        "temporal_value": torch.tensor([[0.0], [0.5], [0.0], [0.25]]),
        "episode_seed": torch.zeros(4, 1, dtype=torch.int64),
        "next": following,
    }
    return TensorDict(data, [4])


def estimate(critic: str, network=None) -> TensorDict:
    advantages = Advantages.make(critic, network, gamma=0.5, lmbda=1.0, group_size=2, average=False)
    return advantages(batch())


def test_returns_alone():
    data = estimate("none")
    assert not data["state_value"].any()
    assert data["advantage"].squeeze(-1).tolist() == [0.625, 0.25, 0.25, -0.5]


def test_the_value_model_as_the_value_function():
    data = estimate("temporal")
    assert torch.equal(data["state_value"], batch()["temporal_value"])
    assert data["advantage"].squeeze(-1).tolist() == [0.5, 0.5, 0.0, -0.25]


def test_outcomes_within_a_group():
    advantage = estimate("group")["advantage"].squeeze(-1)
    torch.testing.assert_close(advantage, torch.tensor([1.0, 1.0, -1.0, -1.0]) / 2**0.5)


def test_a_critic_of_ones_own():
    critic = make_critic("own_critic:linear", nn.Linear(1, 1), None, SIZES)
    data = estimate("own_critic:linear", critic)
    expected = critic.module(batch()["observation", "state"])
    torch.testing.assert_close(data["state_value"], expected)
    assert not data["state_value"].requires_grad
    given = batch()
    value, following = (
        critic.module(states["observation", "state"]).detach() for states in (given, given["next"])
    )
    rewards, goes_on = torch.tensor([[0.25], [-0.5]]), torch.tensor([[0.0], [0.5]])
    last = rewards + goes_on * following[[1, 3]] - value[[1, 3]]
    torch.testing.assert_close(data["advantage"][[1, 3]], last)


def test_a_critic_starts_from_the_small_policy():
    encoder = EncoderConfig(image_size=None, state_dim=5, text_dim=8, features=16)
    spec = PolicySpec(encoder, chunk_size=2, action_dim=4)
    policy = spec.build()
    critic = make_critic("learned", policy, spec, SIZES)
    weights = critic.module.encoder.state_dict()
    held = policy.state_dict()
    assert all(any(torch.equal(w, h) for h in held.values()) for w in weights.values())


@pytest.mark.parametrize("critic", ["temporal", "none", "group"])
def test_no_network(critic):
    assert make_critic(critic, nn.Linear(1, 1), None, SIZES) is None


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        (
            "learnt",
            "unknown critic 'learnt': choose from learned, temporal, none, group, give your own as "
            "'module:Name', or offer it as an entry point in the group 'rftf_torchrl.critics'. "
            "Did you mean 'learned'?",
        ),
        (
            "own_critic:elsewhere",
            "critic=own_critic:elsewhere must return a TensorDict module that writes "
            "'state_value', got TensorDictModule with out_keys ['value'].",
        ),
        (
            "own_critic:bare",
            "critic=own_critic:bare must return a TensorDict module that writes 'state_value', "
            "got Linear with out_keys None.",
        ),
    ],
)
def test_broken_critics(critic, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_critic(critic, nn.Linear(1, 1), None, SIZES)


def test_a_critic_of_another_shape():
    critic = make_critic("own_critic:wide", nn.Linear(1, 1), None, SIZES)
    message = (
        "The module must write 'state_value' with shape (4, 1), one value per state, but wrote "
        "shape (4, 2). Its out_keys are ['state_value']."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        estimate("own_critic:wide", critic)
