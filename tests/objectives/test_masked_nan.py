"""What a mask rules out has no influence: not on the loss, and not on a gradient."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import (
    ArmGripperCloningLoss,
    ChunkCategorical,
    ChunkFlow,
    ChunkNormal,
    ChunkNormalBernoulli,
    EncoderConfig,
    FlowMatchingLoss,
    RFTFPPOLoss,
    TemporalRankingLoss,
    TemporalValueModel,
    flow_matching_error,
    keys,
    small_vla,
)

NAN = float("nan")
EXECUTED = torch.tensor([[True, True, False], [True, False, False]])
HEADS = ["gaussian", "arm_gripper", "tokens", "flow"]
SHAPE = (2, 3, 4)


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def spoiled(chunk):
    return torch.where(EXECUTED[..., None], chunk, torch.full_like(chunk, NAN))


def distributions():
    one = torch.ones(SHAPE)
    leaf = torch.full(SHAPE, 0.3, requires_grad=True)
    yield leaf, ChunkNormal(leaf, one, EXECUTED)
    yield leaf, ChunkNormalBernoulli(leaf[..., :3], one[..., :3], leaf[..., 3], EXECUTED)
    yield leaf, ChunkCategorical(leaf[..., None] * torch.arange(5), executed=EXECUTED)
    path = torch.zeros(2, 2, 3, 4)
    yield leaf, ChunkFlow(path + leaf[:, None], path + 1, path, leaf, EXECUTED)


@pytest.mark.parametrize("number", range(4))
def test_an_action_that_was_never_executed(number):
    leaf, dist = list(distributions())[number]
    chunk = torch.ones(SHAPE)
    expected = dist.log_prob(chunk)
    (wanted,) = torch.autograd.grad(expected.sum(), leaf, retain_graph=True)
    found = dist.log_prob(spoiled(chunk))
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    assert torch.equal(found, expected)
    assert torch.equal(gradient, wanted)
    assert gradient.abs().sum() > 0


def policy(head):
    torch.manual_seed(0)
    config = EncoderConfig(image_size=None, state_dim=5, features=8, vocab_size=8)
    actor = small_vla(config, chunk_size=3, action_dim=4, head=head)
    data = TensorDict({keys.STATE: torch.randn(2, 5)}, [2])
    data[keys.TOKENS] = torch.ones(2, 2, dtype=torch.long)
    data[keys.TOKEN_MASK] = torch.ones(2, 2, dtype=torch.bool)
    return actor, data


@pytest.mark.parametrize("head", ["arm_gripper", "flow"])
def test_a_padded_action_in_cloning(head):
    actor, data = policy(head)
    loss = {"arm_gripper": ArmGripperCloningLoss, "flow": FlowMatchingLoss}[head](actor)
    data[keys.CHUNK] = torch.where(EXECUTED[..., None], 1.0, 0.0).expand(SHAPE)
    data[keys.CHUNK_IS_PAD] = ~EXECUTED
    found = []
    for chunk in (data[keys.CHUNK], spoiled(data[keys.CHUNK])):
        loss.zero_grad()
        torch.manual_seed(1)
        out = loss(data.clone().set(keys.CHUNK, chunk))["loss_bc"]
        out.backward()
        found.append([out, *gradients(loss)])
    assert len(found[0]) > 5
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_padded_action_in_the_flow_error():
    velocity = torch.zeros(SHAPE, requires_grad=True)
    action = spoiled(torch.ones(SHAPE))
    loss = flow_matching_error(velocity, action, torch.zeros(SHAPE), EXECUTED)
    loss.backward()
    assert loss.item() == 1.0
    assert velocity.grad.isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_an_action_that_was_never_executed_in_ppo(head):
    actor, data = policy(head)
    loss = RFTFPPOLoss(actor, reference_actor=actor, critic_coeff=None)
    with torch.no_grad():
        data = actor(data)
    data[keys.EXECUTED] = EXECUTED
    with torch.no_grad():
        data[keys.LOG_PROB] = actor.get_dist(data.copy()).log_prob(data[keys.CHUNK])
    data["advantage"] = torch.tensor([[1.0], [-1.0]])
    found = []
    for chunk in (data[keys.CHUNK], spoiled(data[keys.CHUNK])):
        loss.zero_grad()
        batch = loss.add_reference(data.clone().set(keys.CHUNK, chunk))
        out = loss(batch)
        (out["loss_objective"] + out["loss_kl"]).backward()
        found.append([out["loss_objective"], *gradients(loss)])
    assert len(found[0]) > 5
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_padded_frame_in_ranking():
    model = TemporalValueModel(nn.Linear(2, 1), in_keys=["state"])
    other = TensorDictModule(nn.Linear(2, 1), ["state"], [keys.TEMPORAL_VALUE])
    state = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    data = TensorDict({"state": state, "frame_mask": mask}, [2, 3])
    data[keys.TRAJECTORY_SUCCESS] = torch.tensor([True, False])[:, None, None].expand(2, 3, 1)
    data[keys.TASK_ID] = torch.zeros(2, 3, 1, dtype=torch.int64)
    for value_model in (model, other):
        loss = TemporalRankingLoss(value_model, failures=1.0)
        found = []
        for padding in (0.0, NAN):
            loss.zero_grad()
            filled = torch.where(mask[..., None], state, torch.full_like(state, padding))
            out = loss(data.clone().set("state", filled))
            (out["loss_ranking"] + out["loss_failures"]).backward()
            found.append([out["loss_ranking"], out["loss_failures"], *gradients(loss)])
        assert len(found[0]) == 4
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
