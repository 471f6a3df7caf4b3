import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from rftf_torchrl import FrozenFeatures, RFTFPPOLoss, cache_features, gaussian_actor, keys

CACHED = ("cache", "features")


def policy():
    tower = TensorDictModule(
        nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Tanh()), ["state"], ["features"]
    )
    head = nn.Sequential(nn.Linear(8, 6), nn.Unflatten(-1, (3, 2)))
    network = TensorDictSequential(
        FrozenFeatures(tower), TensorDictModule(head, ["features"], [keys.LOC])
    )
    return gaussian_actor(network, chunk_size=3, action_dim=2)


@torch.no_grad()
def decisions(actor, *batch):
    data = actor(TensorDict({"state": torch.randn(*batch, 5)}, batch))
    data["advantage"] = torch.randn(*batch, 1)
    return data


def counted(actor):
    runs = []
    actor[0][0].module.register_forward_hook(lambda *_: runs.append(1))
    return runs


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("from_rollout", [True, False])
def test_epochs_do_not_run_the_tower_and_compute_the_same(functional, from_rollout):
    actor = policy()
    data = decisions(actor, 10)
    loss = RFTFPPOLoss(actor, reference_actor=actor, functional=functional)
    plain = loss(loss.add_reference(data.copy()))
    runs = counted(actor)
    cache_features(actor, data, minibatch=4, from_rollout=from_rollout)
    assert len(runs) == (0 if from_rollout else 3)
    del runs[:]
    loss = RFTFPPOLoss(actor, reference_actor=actor, functional=functional)
    loss.add_reference(data)
    for _ in range(3):
        out = loss(data)
    assert runs == []
    for name, value in plain.items():
        torch.testing.assert_close(out[name], value)
    if from_rollout:
        assert out["max_ratio"] == 1


def test_a_rollout_never_reads_old_features():
    actor = policy()
    data = decisions(actor, 4)
    data["state"] = data["state"] + 1
    with torch.no_grad():
        fresh = actor(data.copy())
    assert not torch.equal(fresh["features"], data["features"])


def test_any_batch_size_and_the_key_in_the_data():
    actor = policy()
    data = cache_features(actor, decisions(actor, 2, 3), minibatch=4)
    assert data[CACHED].shape == (2, 3, 8)
    torch.testing.assert_close(data[CACHED], data["features"])
    assert CACHED in actor.in_keys


def test_the_tower_neither_trains_nor_drops():
    actor = policy().train()
    tower = actor[0][0].module
    assert not tower.training
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    data = decisions(actor, 4)
    torch.testing.assert_close(data["features"], decisions_of(tower, data))
    loss = RFTFPPOLoss(actor, kl_coeff=0)
    loss(data)["loss_objective"].backward()
    assert all(parameter.grad is None for parameter in tower.parameters())


def decisions_of(tower, data):
    return tower(data.select("state"))["features"]


def test_errors():
    message = "Linear has no FrozenFeatures: wrap the frozen part of the policy."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cache_features(nn.Linear(1, 1), TensorDict(batch_size=[1]))
    actor = policy()
    message = (
        "the data lack ['features'], which the policy writes when it collects: keep them, or "
        "compute them with from_rollout=False."
    )
    with pytest.raises(KeyError, match=re.escape(message)):
        cache_features(actor, TensorDict({"state": torch.zeros(2, 5)}, [2]), from_rollout=True)
