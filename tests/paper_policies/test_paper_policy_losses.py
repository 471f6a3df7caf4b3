"""GR-MG and Seer in the losses of fine-tuning and cloning."""

from copy import deepcopy

import pytest
import torch
from torchrl.objectives import BCLoss

pytest.importorskip("transformers")
from _paper_policies import build, rollout

from rftf_torchrl import RFTFPPOLoss, add_lora, keys


def test_the_ratio_is_one_at_first_and_gradients_reach_what_is_trainable(spec):
    policy = build(spec)
    data = rollout(spec, policy)
    data[keys.EXECUTED] = torch.tensor([[True, False]] * 5)
    data[keys.LOG_PROB] = policy.get_dist(data.clone()).log_prob(data[keys.CHUNK]).detach()
    data["advantage"] = torch.linspace(-1, 1, 5)[:, None]
    loss = RFTFPPOLoss(policy, reference_actor=policy)
    losses = loss(loss.add_reference(data))
    # Attention has one kernel with gradients and one without, which round differently.
    assert float(losses["max_ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert float(losses["kl_reference"]) == pytest.approx(0.0, abs=1e-6)
    (losses["loss_objective"] + losses["loss_entropy"]).backward()
    trained = {n for n, p in loss.named_parameters() if p.requires_grad}
    reached = {n for n, p in loss.named_parameters() if p.grad is not None}
    assert reached == trained
    assert not any("vision_encoder" in name or "model_mae" in name for name in trained)
    assert any("perceiver_resampler" in name for name in trained)


BF16_RATIO = {"gr_mg": 0.2, "seer": 0.05}


def test_the_ratio_in_bf16_is_one_within_a_bound(spec):
    """Acting in float32, learning in bfloat16: what is apart is the rounding of the network."""
    policy = build(spec)
    data = rollout(spec, policy)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        log_prob = policy.get_dist(data.clone()).log_prob(data[keys.CHUNK])
    assert log_prob.dtype == torch.float32
    furthest = (log_prob - data[keys.LOG_PROB]).exp().sub(1).abs().max()
    assert 0 < float(furthest) < BF16_RATIO[spec.kind]


def test_adapters_off_is_the_policy_before_them(spec):
    """Bit for bit, after the adapters have moved."""
    peft = pytest.importorskip("peft")
    original = build(spec)
    data = rollout(spec, original)
    data["advantage"] = torch.linspace(-1, 1, 5)[:, None]
    expected = RFTFPPOLoss(original, reference_actor=original).add_reference(data.clone())
    layers = peft.LoraConfig(r=2, target_modules=["to_q", "to_kv"])
    adapted = add_lora(deepcopy(original), layers, part="")
    loss = RFTFPPOLoss(adapted, reference_actor="adapters_off")
    with torch.no_grad():
        for parameter in loss.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    found = loss.add_reference(data.clone())
    for key in expected["reference"].keys(True, True):
        assert torch.equal(found["reference", key], expected["reference", key]), key
    assert float(loss(found)["kl_reference"]) > 1e-6


@pytest.mark.slow
def test_cloning_by_likelihood_learns_arm_and_gripper(spec):
    policy = build(spec)
    data = rollout(spec, policy).select(*spec.in_keys)
    before = policy.get_dist(data).mode.detach()
    target = torch.cat((0.5 * before[..., :-1], -before[:1, :, -1:].expand(5, -1, -1)), dim=-1)
    data[keys.CHUNK] = target
    loss_module = BCLoss(policy)
    loss_module.set_keys(action=keys.CHUNK)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(25):
        loss = loss_module(data)["loss_bc"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = policy.get_dist(data).mode.detach()
    assert torch.equal(after[..., -1], target[..., -1])
    left, start = ((mode - target)[..., :-1].norm() for mode in (after, before))
    assert float(left) < 0.7 * float(start)
