"""A tower inside a network: cached while it is frozen, and under the names it had."""

import copy
import pickle
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import RFTFPPOLoss, TowerFeatures, cache_bytes, cache_features, gaussian_actor

SEEN = ("cache", "seen")


class Network(nn.Module):
    """A tower whose output a connector maps to a chunk of two actions."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Linear(5, 8).requires_grad_(False)
        self.connector = nn.Linear(8, 6)
        self.kept = TowerFeatures(self.frozen, {"state": ("observation", "state")}, ["seen"])

    def frozen(self, inputs):
        if self.tower.weight.requires_grad:
            return {}
        return {"seen": self.tower(inputs["state"])}

    def forward(self, state, seen=None):
        seen = self.tower(state) if seen is None else seen
        return self.connector(seen.tanh()).unflatten(-1, (3, 2))


def make():
    torch.manual_seed(0)
    network = Network()
    keys = [("observation", "state"), *network.kept.out_keys]
    actor = gaussian_actor(
        TensorDictModule(network, keys, ["loc"]), chunk_size=3, action_dim=2
    ).eval()
    with torch.no_grad():
        data = actor(TensorDict({"observation": {"state": torch.randn(2, 3, 5)}}, [2, 3]))
    assert "cache" not in data
    data["advantage"] = torch.randn(2, 3, 1)
    return actor, network, data


@pytest.mark.parametrize("functional", [True, False])
def test_the_epochs_do_not_run_the_tower_and_compute_the_same(functional):
    actor, network, data = make()
    plain = RFTFPPOLoss(actor, kl_coeff=0, functional=functional)(data.copy())
    rows = []
    network.tower.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    assert cache_features(actor, data, minibatch=4) is data
    assert rows == [4, 2]
    assert data[SEEN].shape == (2, 3, 8)
    loss = RFTFPPOLoss(actor, kl_coeff=0, functional=functional)
    out = loss(data)
    assert rows == [4, 2]
    for name, value in plain.items():
        torch.testing.assert_close(out[name], value)
    assert out["max_ratio"] == pytest.approx(1, abs=1e-6)
    out["loss_objective"].backward()
    reached = {name for name, p in loss.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in loss.named_parameters() if p.requires_grad}


def test_a_tower_that_trains_is_not_cached_and_loses_what_was():
    actor, network, data = make()
    cache_features(actor, data)
    network.tower.requires_grad_(True)
    assert cache_bytes(actor, data) == 0
    assert SEEN not in cache_features(actor, data).keys(True)
    RFTFPPOLoss(actor, kl_coeff=0, functional=False)(data)["loss_objective"].backward()
    assert network.tower.weight.grad.abs().sum() > 0


def test_weights_keep_their_names_and_copies_ask_their_own_tower():
    actor, network, data = make()
    assert list(network.state_dict()) == [
        "tower.weight", "tower.bias", "connector.weight", "connector.bias",
    ]  # fmt: skip
    for again in (copy.deepcopy(actor), pickle.loads(pickle.dumps(actor))):
        again[0].module.tower.bias.data += 1
        moved = cache_features(again, data.copy())[SEEN]
        torch.testing.assert_close(moved, cache_features(actor, data.copy())[SEEN] + 1)


def test_bytes_for_all_decisions():
    actor, _, data = make()
    assert cache_bytes(actor, data) == 2 * 3 * 8 * 4
    assert "cache" not in data
    assert cache_bytes(nn.Linear(1, 1), data) == 0
    assert cache_bytes(actor, data[:0]) == 0


def test_a_rollout_keeps_no_features():
    actor, _, data = make()
    message = (
        "from_rollout=True, but this policy writes no features when it collects: compute them "
        "with from_rollout=False."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cache_features(actor, data, from_rollout=True)
