"""Adapters, recomputed layers and a flow head around a decoder of transformers, in bfloat16."""

import copy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import (
    ChunkVelocity,
    RFTFPPOLoss,
    accumulate_gradients,
    add_lora,
    autocast,
    checkpoint_activations,
    flow_actor,
    keys,
    merge_lora,
)

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


class LastState(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = transformers.LlamaModel(
            transformers.LlamaConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                vocab_size=32,
            )
        )

    def forward(self, tokens):
        return self.model(tokens, use_cache=False).last_hidden_state[:, -1]


def policy():
    network = TensorDictModule(LastState(), [keys.TOKENS], ["features"])
    velocity = ChunkVelocity(16, (3, 2), width=16)
    return flow_actor(network, velocity, chunk_size=3, action_dim=2).eval()


def with_lora(actor):
    return add_lora(actor, peft.LoraConfig(r=2, target_modules="all-linear"))


@torch.no_grad()
def decisions(actor, count=6):
    data = TensorDict({keys.TOKENS: torch.randint(32, (count, 5))}, [count])
    data = actor(data)
    data["advantage"] = torch.randn(count, 1)
    return data


def test_adapters_of_bfloat16_weights_are_float32():
    actor = policy()
    actor.module[0].module.bfloat16()
    names = [n for n, p in with_lora(actor).named_parameters() if p.dtype == torch.bfloat16]
    assert names
    assert not any("lora" in name for name in names)


def test_the_adapters_are_in_the_decoder_alone():
    trained = [n for n, p in with_lora(policy()).named_parameters() if p.requires_grad]
    assert {n for n in trained if "lora" in n}
    assert all("lora" in n or n.startswith("module.1.velocity") for n in trained)


@pytest.mark.parametrize("functional", [True, False])
def test_adapters_off_is_the_original_in_bfloat16(functional):
    torch.manual_seed(0)
    original = policy()
    actor = with_lora(copy.deepcopy(original))
    with autocast("cpu", "bf16"):
        data = decisions(original)
        expected = RFTFPPOLoss(original, reference_actor=original).add_reference(data.copy())
        loss = RFTFPPOLoss(actor, reference_actor="adapters_off", functional=functional)
        first = loss(loss.add_reference(data))
        assert first["max_ratio"] == 1
        assert first["kl_reference"] == 0
        with torch.no_grad():
            for parameter in loss.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        again = loss.add_reference(data.copy())
    for key in expected["reference"].keys(True, True):
        assert torch.equal(again["reference", key], expected["reference", key])


def test_the_layers_run_again_in_evaluation_mode_and_give_the_same_gradients():
    torch.manual_seed(0)
    plain = with_lora(policy())
    data = decisions(plain, 5)
    saving = copy.deepcopy(plain)
    names = checkpoint_activations(saving[0])
    assert names == ["module.model.layers.0", "module.model.layers.1"]
    found = []
    for actor in (plain, saving):
        runs = []
        for layer in actor[0].module.model.layers:
            layer.self_attn.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        loss = RFTFPPOLoss(actor, kl_coeff=0, functional=False)
        accumulate_gradients(loss, data, micro_batch=2)
        found.append({n: p.grad for n, p in loss.named_parameters() if p.requires_grad})
        assert len(runs) == 3 * 2 * (1 if actor is plain else 2)
    for name, gradient in found[0].items():
        assert torch.equal(found[1][name], gradient), name


def test_merged_weights_save_and_load_as_before():
    torch.manual_seed(0)
    start = policy()
    actor = with_lora(copy.deepcopy(start))
    with torch.no_grad():
        for name, parameter in actor.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    data = decisions(actor)
    merge_lora(actor)
    start.load_state_dict(actor.state_dict())
    found = start.get_dist(data.copy()).log_prob(data[keys.CHUNK])
    torch.testing.assert_close(found, data[keys.LOG_PROB], rtol=1e-4, atol=1e-3)
