"""The cloning loss of an arm with a gripper: hand-computed, masked, and able to learn."""

import math
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.objectives import BCLoss

from rftf_torchrl import (
    ArmGripperCloningLoss,
    EncoderConfig,
    arm_gripper_actor,
    gaussian_actor,
    keys,
    small_vla,
)


def still_actor(loc, logit):
    """Predicts the same for every row: two actions of a two-dimensional arm."""
    network = TensorDictModule(
        lambda x: (x.new_full((len(x), 2, 2), loc), x.new_full((len(x), 2), logit)),
        ["x"],
        ["arm_loc", "logits"],
    )
    return arm_gripper_actor(network, chunk_size=2, arm_dim=2)


def demonstration(chunk):
    data = TensorDict({"x": torch.zeros(len(chunk))}, [len(chunk)])
    return data.set(keys.CHUNK, torch.tensor(chunk))


def test_by_hand():
    data = demonstration([[[0.5, -0.5, 1.0], [0.0, 1.0, -1.0]]])
    loss = ArmGripperCloningLoss(still_actor(0.0, 2.0), gripper_coeff=0.5)(data)["loss_bc"]
    opened, closed = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    expected = ((0.5 + 0.5 * opened) + (0.5 + 0.5 * closed)) / 2
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_padding_does_not_count():
    data = demonstration([[[0.5, -0.5, 1.0], [9.0, 9.0, -1.0]]])
    data[keys.CHUNK_IS_PAD] = torch.tensor([[False, True]])
    loss = ArmGripperCloningLoss(still_actor(0.0, 2.0))(data)["loss_bc"]
    torch.testing.assert_close(loss, torch.tensor(0.5 + math.log(1 + math.exp(-2))))


GRIPPERS = {"0 and 1": (0.0, 1.0), "effort": (0.0, 0.6)}


def test_rows_outside_of_the_mask_of_a_batch_count_for_nothing():
    one = [[0.5, -0.5, 1.0], [0.0, 1.0, -1.0]]
    data = demonstration([one, [[9.0, 9.0, 1.0], [9.0, 9.0, 1.0]]])
    loss = ArmGripperCloningLoss(still_actor(0.0, 2.0))
    data["collector", "mask"] = torch.tensor([True, False])
    assert loss(data)["loss_bc"] == loss(demonstration([one]))["loss_bc"]


@pytest.mark.parametrize("name", GRIPPERS)
def test_other_grippers_are_refused_or_have_a_threshold(name):
    closed, opened = GRIPPERS[name]
    data = demonstration([[[0.0, 0.0, closed], [0.0, 0.0, opened]]])
    listed, count = ("0", 1) if opened == 1 else ("0, 0.6", 2)
    message = (
        f"the gripper, the last number of an action, is {listed} in {count} of 2 actions, expected "
        "1 or -1, as the simulator takes them. Write these two into the data, or say from which "
        "number on it counts as 1: gripper_threshold of ArmGripperCloningLoss, "
        "cloning.gripper_threshold of a run."
    )
    actor = still_actor(0.0, 2.0)
    likelihood = BCLoss(actor)
    likelihood.set_keys(action=keys.CHUNK)
    for loss in (ArmGripperCloningLoss(actor), likelihood):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            loss(data)
    plain = demonstration([[[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]])
    for threshold in (0.3, opened):  # the least number that counts as 1
        found = ArmGripperCloningLoss(actor, gripper_threshold=threshold)(data)
        assert torch.equal(found["loss_bc"], ArmGripperCloningLoss(actor)(plain)["loss_bc"])


def test_a_gripper_of_padding_may_be_anything():
    data = demonstration([[[0.0, 0.0, 1.0], [0.0, 0.0, 0.3]]])
    data[keys.CHUNK_IS_PAD] = torch.tensor([[False, True]])
    assert ArmGripperCloningLoss(still_actor(0.0, 2.0))(data)["loss_bc"].isfinite()


def test_nothing_but_padding_is_refused():
    data = demonstration([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])
    data[keys.CHUNK_IS_PAD] = torch.ones(1, 2, dtype=torch.bool)
    message = (
        "every action at ('vla_action', 'chunk') is padding by 'action_is_pad': there is nothing "
        "to clone."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ArmGripperCloningLoss(still_actor(0.0, 2.0))(data)


def test_another_policy_is_refused():
    network = TensorDictModule(lambda x: x, ["x"], ["loc"])
    actor = gaussian_actor(network, chunk_size=2, action_dim=3)
    with pytest.raises(ValueError, match=re.escape("needs a policy that writes 'arm_loc'")):
        ArmGripperCloningLoss(actor)


@pytest.mark.slow
def test_the_small_policy_learns_when_to_let_go():
    torch.manual_seed(0)
    config = EncoderConfig(image_size=None, state_dim=1, features=32, vocab_size=8)
    actor = small_vla(config, chunk_size=1, action_dim=3, head="arm_gripper", init_scale=0.2)
    state = torch.linspace(-1, 1, 64)[:, None]
    data = TensorDict({keys.STATE: state}, [64])
    data[keys.TOKENS] = torch.ones(64, 2, dtype=torch.long)
    data[keys.TOKEN_MASK] = torch.ones(64, 2, dtype=torch.bool)
    chunk = torch.cat([state, -state, torch.where(state >= 0, 1.0, -1.0)], -1)
    data[keys.CHUNK] = chunk[:, None]
    loss_module = ArmGripperCloningLoss(actor)
    optimizer = torch.optim.Adam(actor.parameters(), lr=3e-3)
    scale = actor(data.clone())["arm_scale"].clone()
    for _ in range(300):
        optimizer.zero_grad()
        loss_module(data)["loss_bc"].backward()
        optimizer.step()
    found = actor.get_dist(data.clone()).mode
    assert float((found[..., :2] - chunk[:, None, :2]).detach().abs().mean()) < 0.1
    assert float((found[..., 2] == chunk[:, None, 2]).float().mean()) > 0.95
    torch.testing.assert_close(actor(data.clone())["arm_scale"], scale)
