"""A loss whose networks run in bfloat16: what has to stay float32, and how far the ratio moves."""

import pytest
import torch
from _blocks_policy import critic, decisions, policy, total
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import ChunkVelocity, FlowNoise, RFTFPPOLoss, autocast, flow_actor, keys

RATIO_BOUND = 1e-6


def flow():
    network = TensorDictModule(nn.Linear(5, 8), ["state"], ["features"])
    velocity = ChunkVelocity(8, (3, 2), width=16)
    return flow_actor(network, velocity, chunk_size=3, action_dim=2, noise=FlowNoise(8, (3, 2), 4))


@pytest.mark.parametrize("build", [policy, flow])
@pytest.mark.parametrize("functional", [True, False])
def test_the_first_ratio_is_one_and_losses_are_float32(build, functional):
    torch.manual_seed(0)
    actor = build()
    with autocast("cpu", "bf16"):
        data = decisions(actor, 16)
        loss = RFTFPPOLoss(
            actor, critic(), reference_actor=actor, functional=functional, loss_critic_type="l2"
        )
        loss.add_reference(data)
        out = loss(data)
    assert data[keys.LOG_PROB].dtype == torch.float32
    assert data[keys.CHUNK].dtype == torch.float32
    for name in ("loss_objective", "loss_kl", "kl_reference", "loss_entropy", "loss_critic"):
        assert out[name].dtype == torch.float32, name
    assert abs(float(out["max_ratio"]) - 1) <= RATIO_BOUND
    assert abs(float(out["mean_ratio"]) - 1) <= RATIO_BOUND
    assert float(out["kl_reference"]) == 0
    total(out).backward()
    assert all(p.grad.dtype == torch.float32 for p in loss.parameters())


def test_another_batch_size_moves_the_ratio_less_than_clipping_notices():
    """Kernels may differ by batch size: rollouts decide one by one, updates score minibatches."""
    torch.manual_seed(0)
    actor = policy()
    with autocast("cpu", "bf16"):
        rows = [decisions(actor, 1) for _ in range(32)]
        data = torch.cat(rows)
        out = RFTFPPOLoss(actor, kl_coeff=0)(data)
    assert abs(float(out["max_ratio"]) - 1) < 0.05


def test_weights_in_bfloat16_still_score_in_float32():
    torch.manual_seed(0)
    actor = policy().to(torch.bfloat16)
    data = TensorDict({"state": torch.randn(8, 5, dtype=torch.bfloat16)}, [8])
    with torch.no_grad():
        data = actor(data)
    data["advantage"] = torch.randn(8, 1)
    out = RFTFPPOLoss(actor, kl_coeff=0)(data)
    assert data[keys.LOG_PROB].dtype == torch.float32
    assert float(out["max_ratio"]) == 1
    assert out["loss_objective"].dtype == torch.float32
