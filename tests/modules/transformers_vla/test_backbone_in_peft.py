"""A PEFT model may take the backbone's place: adapters off is the policy as it was."""

import pytest
import torch

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
