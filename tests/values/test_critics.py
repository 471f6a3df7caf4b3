import torch
from tensordict import TensorDict
from torchrl.objectives.value import GAE

from rftf_torchrl import EncoderConfig, small_critic

CONFIG = EncoderConfig(image_size=None, state_dim=5, text_dim=8, features=16)


def states(*batch: int) -> dict:
    return {
        "observation": {"state": torch.randn(*batch, 5)},
        "instruction": {
            "tokens": torch.randint(1, 20, (*batch, 4)),
            "mask": torch.ones(*batch, 4, dtype=torch.bool),
        },
    }


def trajectory(steps: int) -> TensorDict:
    done = torch.zeros(steps, 1, dtype=torch.bool)
    done[-1] = True
    following = {**states(steps), "reward": torch.randn(steps, 1)}
    following |= {"done": done, "terminated": done}
    return TensorDict({**states(steps), "next": following}, [steps])


def test_stock_gae_takes_the_critic():
    data = GAE(gamma=0.9, lmbda=0.9, value_network=small_critic(CONFIG))(trajectory(5))
    assert data["advantage"].shape == (5, 1)
    torch.testing.assert_close(data["value_target"], data["advantage"] + data["state_value"])


def test_keys_can_be_renamed():
    critic = small_critic(CONFIG, in_keys=["s", "t", "m"], out_key="v")
    data = TensorDict(
        {
            "s": torch.randn(3, 5),
            "t": torch.ones(3, 4, dtype=torch.int64),
            "m": torch.ones(3, 4, dtype=torch.bool),
        },
        [3],
    )
    assert critic(data)["v"].shape == (3, 1)
