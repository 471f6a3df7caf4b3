"""Stock BCLoss trains both actors."""

import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
)
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import BCLoss

from rftf_torchrl import EncoderConfig, TokenCloningLoss, keys, small_vla, token_actor

CONFIG = EncoderConfig(image_size=None, state_dim=5, text_dim=8, features=16)
PAD = torch.tensor([[False, False, False, False], [False, True, True, True]])


def demonstrations() -> TensorDict:
    torch.manual_seed(0)
    return TensorDict(
        {
            "observation": {"state": torch.randn(2, 5)},
            "instruction": {
                "tokens": torch.ones(2, 4, dtype=torch.int64),
                "mask": torch.ones(2, 4, dtype=torch.bool),
            },
            "vla_action": {"chunk": torch.rand(2, 4, 2) * 2 - 1, "executed": ~PAD},
            "action_is_pad": PAD,
        },
        [2],
    )


def test_l1_on_the_mean_of_the_gaussian_actor():
    actor, data = small_vla(CONFIG, chunk_size=4, action_dim=2), demonstrations()
    loss = BCLoss(actor, loss_function="l1")
    loss.set_keys(action=keys.CHUNK, pad_mask=keys.CHUNK_IS_PAD)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        out = loss(data)
    mean = actor(data.copy())[keys.LOC]
    expected = (mean - data[keys.CHUNK]).abs()[~PAD].mean()
    torch.testing.assert_close(out["loss_bc"], expected)


@pytest.mark.parametrize("head", ["gaussian", "tokens"])
def test_likelihood_over_real_actions(head):
    actor, data = small_vla(CONFIG, chunk_size=4, action_dim=2, head=head), demonstrations()
    loss = BCLoss(actor)
    loss.set_keys(action=keys.CHUNK)
    expected = -actor.get_dist(data.copy()).log_prob(data[keys.CHUNK]).mean()
    torch.testing.assert_close(loss(data)["loss_bc"], expected)
    changed = data.clone()
    changed[keys.CHUNK][PAD] = 0.0
    assert torch.equal(loss(changed)["loss_bc"], loss(data)["loss_bc"])
    if head == "tokens":
        ours = TokenCloningLoss(actor)
        ours.set_keys(action=keys.CHUNK)
        assert torch.equal(ours(data)["loss_bc"], loss(data)["loss_bc"]), "without acting first"
        padded = data.exclude(keys.EXECUTED)
        ours.set_keys(pad_mask=keys.CHUNK_IS_PAD)
        assert torch.equal(ours(padded)["loss_bc"], loss(data)["loss_bc"])
        assert torch.equal(ours(data)["loss_bc"], loss(data)["loss_bc"]), "both masks"
        with pytest.raises(ValueError, match=r"^loss_function='l1': tokens are cloned by"):
            TokenCloningLoss(actor, loss_function="l1")
        elsewhere = TokenCloningLoss(actor)
        elsewhere.set_keys(action="expert")
        with pytest.raises(ValueError, match=r"^the demonstrations' chunk is 'expert', and the"):
            elsewhere(data.clone().set("expert", data[keys.CHUNK]))


@pytest.mark.parametrize("head", ["gaussian", "tokens"])
def test_cloning_fits_the_demonstrations(head):
    actor, data = small_vla(CONFIG, chunk_size=4, action_dim=2, head=head), demonstrations()
    loss = BCLoss(actor, loss_function="l1" if head == "gaussian" else None)
    loss.set_keys(action=keys.CHUNK)
    if head == "gaussian":
        loss.set_keys(pad_mask=keys.CHUNK_IS_PAD)
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-2)
    for _ in range(150):
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            out = loss(data)
        optimizer.zero_grad()
        out["loss_bc"].backward()
        optimizer.step()
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        error = (actor(data.copy())[keys.CHUNK] - data[keys.CHUNK]).abs()[~PAD]
    assert error.max() < (0.15 if head == "gaussian" else 1 / 11 + 1e-6)


@pytest.mark.parametrize("mask", [None, torch.ones(1, 4, dtype=torch.bool)])
def test_padding_counts_for_nothing_whatever_the_mask_is_called(mask):
    network = TensorDictModule(lambda x: x.new_zeros(1, 4, 2, 8), ["x"], [keys.LOGITS])
    actor = token_actor(network, chunk_size=4, action_dim=2, bins=8, executed_key="mine")
    loss = TokenCloningLoss(actor)
    loss.set_keys(action=keys.CHUNK, pad_mask=keys.CHUNK_IS_PAD)
    data = TensorDict({"x": torch.zeros(1), keys.CHUNK: torch.zeros(1, 4, 2)}, [1])
    data[keys.CHUNK_IS_PAD] = torch.tensor([[False, True, True, True]])
    if mask is not None:
        data["mine"] = mask
    assert loss(data)["loss_bc"].item() == pytest.approx(2 * math.log(8))


def test_padding_without_a_mask_is_refused():
    network = TensorDictModule(lambda x: x.new_zeros(1, 3), ["x"], ["logits"])
    actor = ProbabilisticTensorDictSequential(
        network,
        ProbabilisticTensorDictModule(
            ["logits"], ["action"], distribution_class=torch.distributions.Categorical
        ),
    )
    loss = TokenCloningLoss(actor)
    loss.set_keys(action="action", pad_mask="pad")
    data = TensorDict({"x": torch.zeros(1), "action": torch.zeros(1).long()}, [1])
    data["pad"] = torch.tensor([True])
    with pytest.raises(ValueError, match=r"^'pad' marks padding, and this policy reads no mask"):
        loss(data)
