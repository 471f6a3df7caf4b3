"""mark_executed: the stored log-probability counts executed actions only."""

from __future__ import annotations

import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
)
from torch import nn
from torch.distributions import Independent, Normal

from rftf_torchrl import ChunkNormal, mark_executed


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, state):
        self.calls += 1
        loc = self.dropout(self.weight * state)[..., None, :].expand(*state.shape[:-1], 3, 2)
        return loc, torch.full_like(loc, 0.7)


class IndependentNormal(Independent):
    def __init__(self, loc, scale):
        super().__init__(Normal(loc, scale), 2)


def actor(distribution=ChunkNormal) -> ProbabilisticTensorDictSequential:
    in_keys = {"loc": "loc", "scale": "scale"}
    if distribution is ChunkNormal:
        in_keys["executed"] = ("vla_action", "executed")
    return ProbabilisticTensorDictSequential(
        TensorDictModule(Mean(), in_keys=["state"], out_keys=["loc", "scale"]),
        ProbabilisticTensorDictModule(
            in_keys=in_keys,
            out_keys=[("vla_action", "chunk")],
            distribution_class=distribution,
            return_log_prob=True,
            log_prob_key=("vla_action", "log_probs"),
        ),
    )


def decisions(executed) -> TensorDict:
    torch.manual_seed(0)
    executed = torch.tensor(executed)
    batch = executed.shape[:-1]
    data = TensorDict({"state": torch.randn(*batch, 2), "next": {"executed": executed}}, batch)
    data["vla_action", "chunk"] = torch.randn(*batch, 3, 2)
    data["vla_action", "log_probs"] = torch.full(batch, -123.0)
    return data


PARTIAL = [[True, True, True], [True, False, False]]


def test_log_probs_cover_executed_actions_only():
    data = decisions(PARTIAL)
    out = mark_executed(data, actor())
    assert out is data
    assert data["vla_action", "executed"].tolist() == PARTIAL
    loc = 0.5 * data["state"][:, None, :]
    each = Normal(loc, 0.7).log_prob(data["vla_action", "chunk"]).sum(-1)
    expected = torch.stack([each[0].sum(), each[1, 0]])
    torch.testing.assert_close(data["vla_action", "log_probs"], expected)
    assert not data["vla_action", "log_probs"].requires_grad


def test_nothing_is_computed_when_all_actions_were_executed():
    policy = actor()
    data = mark_executed(decisions([[True] * 3] * 2), policy)
    assert policy[0].module.calls == 0
    assert (data["vla_action", "log_probs"] == -123.0).all()
    assert data["vla_action", "executed"].all()


def test_without_an_actor_only_the_mask_moves():
    data = mark_executed(decisions(PARTIAL))
    assert data["vla_action", "executed"].tolist() == PARTIAL
    assert (data["vla_action", "log_probs"] == -123.0).all()


def test_without_a_record_nothing_changes():
    data = decisions(PARTIAL).exclude(("next", "executed"))
    keys = set(data.keys(True, True))
    assert set(mark_executed(data, actor()).keys(True, True)) == keys


def test_batch_by_time_and_other_keys():
    data = decisions([PARTIAL, PARTIAL])
    data.rename_key_(("next", "executed"), ("next", "done_actions"))
    mark_executed(data, next_executed_key=("next", "done_actions"), executed_key="executed")
    assert data["executed"].shape == (2, 2, 3)
    grid = decisions(PARTIAL).unsqueeze(0)
    found = mark_executed(grid, actor(), minibatch=1)["vla_action", "log_probs"]
    assert found.shape == (1, 2)
    assert not (found == -123.0).any()


def test_the_actor_is_evaluated_without_dropout_and_left_alone():
    policy = actor().train()
    data = decisions(PARTIAL)
    before = {key: data[key].clone() for key in ("state", ("vla_action", "chunk"))}
    mark_executed(data, policy)
    assert policy.training
    assert policy[0].module.dropout.training
    assert "loc" not in data
    assert all(torch.equal(data[key], tensor) for key, tensor in before.items())


def test_errors():
    message = (
        "2 actions were not executed, but the actor's IndependentNormal does not read "
        "('vla_action', 'executed'), so its log-probabilities would count them. Use ChunkNormal "
        "or ChunkCategorical, or an actor built by gaussian_actor."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        mark_executed(decisions(PARTIAL), actor(IndependentNormal))
    data = decisions(PARTIAL)
    data["next", "executed"] = data["next", "executed"].float()
    message = (
        "('next', 'executed') must be bool with shape (2,) + (H,), got torch.float32 with shape "
        "(2, 3)."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        mark_executed(data)
