import re

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rftf_torchrl import ValueReward, score_module


class Progress(nn.Module):
    """A reward model by LeRobot's convention: compute_reward(batch) -> (B,)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))

    def compute_reward(self, batch):
        assert batch["observation.images.top"].ndim == 4
        brightness = batch["observation.images.top"].mean((1, 2, 3))
        return brightness + batch["observation.state"] @ self.weight

    def two_each(self, batch):
        return batch["observation.state"]


INPUTS = {
    "observation.images.top": ("observation", "image"),
    "observation.state": ("observation", "state"),
}


def states(*batch):
    image = torch.full((*batch, 3, 4, 4), 51, dtype=torch.uint8)
    state = torch.arange(2.0 * torch.Size(batch).numel()).reshape(*batch, 2)
    return TensorDict({"observation": {"image": image, "state": state}}, batch)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_score_of_any_batch(batch):
    out = score_module(Progress(), INPUTS)(states(*batch))["temporal_value"]
    assert out.shape == (*batch, 1)
    flat = torch.arange(torch.Size(batch).numel(), dtype=torch.float32)
    expected = 0.2 + 2 * flat + 2 * (2 * flat + 1)
    torch.testing.assert_close(out.flatten(), expected)


def test_it_rewards_progress_and_is_frozen():
    model = Progress()
    data = states(2)
    following = states(3)[1:]
    following["success"] = following["terminated"] = torch.zeros(2, 1, dtype=torch.bool)
    data["next"] = following
    reward = ValueReward(score_module(model, INPUTS), gamma=1.0)(data)
    assert reward["next", "dense_reward"].flatten().tolist() == pytest.approx([6.0, 6.0])
    assert not model.weight.requires_grad


def test_a_function_of_model_and_batch():
    double = score_module(
        Progress(), INPUTS, method=lambda model, batch: 2 * model.compute_reward(batch)
    )
    single = score_module(Progress(), INPUTS)
    assert torch.equal(double(states(3))["temporal_value"], 2 * single(states(3))["temporal_value"])


def test_bad_models():
    message = (
        "Linear has no method 'compute_reward': pass method=, a name or a function of model and "
        "batch."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        score_module(nn.Linear(1, 1), INPUTS)
    message = "the model must score each of 3 states by one number, got shape (3, 2)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        score_module(Progress(), INPUTS, method="two_each")(states(3))
