"""A PEFT model may take the backbone's place: adapters off is the policy as it was."""

from copy import deepcopy

import pytest
import torch

from rftf_torchrl import RFTFPPOLoss, add_lora

pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


@pytest.mark.parametrize("family", ["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("decoding", ["parallel", "autoregressive"])
def test_adapters_in_the_backbone(described, checkpoint, observations, family, decoding):
    spec = described(family, decoding=decoding)
    policy = spec.load(checkpoint(family))
    data = spec.observation_transform()(observations).exclude("language_instruction")
    data["vla_action", "chunk"] = torch.linspace(-1, 1, 30).reshape(5, 2, 3)
    before = policy.get_dist(data.clone()).logits
    network = policy.module[0].model.network
    network.backbone = peft.get_peft_model(
        network.backbone, peft.LoraConfig(target_modules=["q_proj", "v_proj"])
    )
    for name, parameter in network.backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted = policy.get_dist(data.clone()).logits
    assert not torch.allclose(adapted, before)
    with network.backbone.disable_adapter():
        assert torch.equal(policy.get_dist(data.clone()).logits, before)
    adapted.square().sum().backward()
    reached = {name for name, p in network.backbone.named_parameters() if p.grad is not None}
    assert reached
    assert all("lora_" in name for name in reached)


@pytest.mark.parametrize("family", ["smolvlm", "paligemma", "qwen3_vl"])
@pytest.mark.parametrize("head", ["gaussian", "flow"])
def test_the_reference_is_the_policy_before_its_adapters(
    described, checkpoint, observations, family, head
):
    """Bit for bit, after adapters, queries and head have moved."""
    spec = described(family, head=head)
    original = spec.load(checkpoint(family))
    data = spec.observation_transform()(observations).exclude("language_instruction")
    with torch.no_grad():
        data = original(data)
    data["advantage"] = torch.linspace(-1, 1, 5).unsqueeze(-1)
    adapted = add_lora(deepcopy(original), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    loss = RFTFPPOLoss(adapted, reference_actor="adapters_off")
    with torch.no_grad():
        for parameter in loss.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    found = loss.add_reference(data.clone())
    for key, value in found["reference"].items(True, True):
        assert torch.equal(value, data[key]), key
    assert float(loss(found)["kl_reference"]) > 1e-6
