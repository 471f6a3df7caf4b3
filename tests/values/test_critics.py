import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives.value import GAE

from rftf_torchrl import EncoderConfig, residual_critic, small_critic

CONFIG = EncoderConfig(image_size=None, state_dim=5, text_dim=8, features=16)


def states(*batch: int) -> dict:
    return {
        "observation": {"state": torch.randn(*batch, 5)},
        "instruction": {
            "tokens": torch.randint(1, 20, (*batch, 4)),
            "mask": torch.ones(*batch, 4, dtype=torch.bool),
        },
        "temporal_value": torch.randn(*batch, 1),
    }


def trajectory(steps: int) -> TensorDict:
    done = torch.zeros(steps, 1, dtype=torch.bool)
    done[-1] = True
    following = {**states(steps), "reward": torch.randn(steps, 1)}
    following |= {"done": done, "terminated": done}
    return TensorDict({**states(steps), "next": following}, [steps])


@pytest.mark.parametrize("build", [small_critic, residual_critic])
def test_stock_gae_takes_the_critic(build):
    data = GAE(gamma=0.9, lmbda=0.9, value_network=build(CONFIG))(trajectory(5))
    assert data["advantage"].shape == (5, 1)
    torch.testing.assert_close(data["value_target"], data["advantage"] + data["state_value"])


@pytest.mark.parametrize("build", [small_critic, residual_critic])
def test_keys_can_be_renamed(build):
    critic = build(CONFIG, in_keys=["s", "t", "m"], out_key="v")
    data = TensorDict(
        {
            "s": torch.randn(3, 5),
            "t": torch.ones(3, 4, dtype=torch.int64),
            "m": torch.ones(3, 4, dtype=torch.bool),
            "temporal_value": torch.zeros(3, 1),
        },
        [3],
    )
    assert critic(data)["v"].shape == (3, 1)


def test_residual_critic_starts_as_the_temporal_value():
    data = TensorDict(states(6), [6])
    out = residual_critic(CONFIG)(data)
    assert torch.equal(out["state_value"], data["temporal_value"])


def test_residual_critic_learns_the_remainder_and_leaves_the_value_model_alone():
    critic = residual_critic(CONFIG)
    data = TensorDict(states(6), [6])
    data["temporal_value"].requires_grad_(True)
    critic(data)["state_value"].square().sum().backward()
    assert data["temporal_value"].grad is None
    head = critic.module.remainder.head
    assert head.weight.grad.abs().sum() > 0
