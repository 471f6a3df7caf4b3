"""GR-MG's and Seer's frozen encoders run once for all epochs of an update."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchrl.envs import TransformedEnv

pytest.importorskip("transformers")
from _arm_env import ArmEnv
from _paper_policies import SPECS
from _tiny_vlas import LENGTH

from rftf_torchrl import RFTFPPOLoss, add_lora, cache_bytes, cache_features, gr_mg_value_model, keys
from rftf_torchrl.paper_policies.blocks.clip_text import ClipText
from rftf_torchrl.paper_policies.blocks.vit import MAEEncoder

PICTURES = {"gr_mg": ["image", "wrist_image", "goal_image"], "seer": ["image", "wrist_image"]}
STEPS = 5


def make(spec):
    """A policy and the decisions of a rollout, as the loss takes them."""
    torch.manual_seed(0)
    policy = spec.build()
    for parameter in policy.parameters():  # fresh queries of Seer are zero
        nn.init.normal_(parameter.data, std=0.15) if parameter.ndim > 1 else None
    env = TransformedEnv(
        ArmEnv(chunk=spec.chunk_size, wrist=spec.wrist), spec.observation_transform()
    )
    with torch.no_grad():
        data = env.rollout(STEPS, policy)
    assert "cache" not in data
    assert "cache" not in data["next"]
    data["advantage"] = torch.linspace(-1, 1, STEPS)[:, None]
    return policy, data.exclude("language_instruction", ("next", "language_instruction"))


def encoded(policy, kind):
    """What goes through the encoder from now on, in rows; in copies of the policy too."""
    rows = []
    tower = next(module for module in policy.modules() if isinstance(module, kind))
    tower.register_forward_hook(lambda module, given, out: rows.append(len(given[0])))
    return rows


def terms_and_gradients(loss, data):
    losses = loss(loss.add_reference(data))
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    return losses, {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("wrist", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_loss_and_gradients_are_those_without_a_cache(spec, functional, wrist):
    spec = replace(spec, wrist=wrist)
    policy, data = make(spec)
    plain = RFTFPPOLoss(copy.deepcopy(policy), reference_actor=policy, functional=functional)
    expected, gradients = terms_and_gradients(plain, data.copy())
    pictures, sentences = encoded(policy, MAEEncoder), encoded(policy, ClipText)
    cache_features(policy, data, minibatch=4)
    windows = 1 + wrist
    assert sum(pictures) == STEPS * (windows * LENGTH + (spec.kind == "gr_mg"))
    assert sentences == [4, 1]
    del pictures[:], sentences[:]
    loss = RFTFPPOLoss(policy, reference_actor=policy, functional=functional)
    for _ in range(2):
        loss.zero_grad()
        found, reached = terms_and_gradients(loss, data)
    assert pictures == sentences == []
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)
    assert gradients.keys() == reached.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(reached[name], gradient, atol=1e-5, rtol=1e-3)
    assert {n for n, p in loss.named_parameters() if p.requires_grad} == set(reached)


def test_the_first_ratio_is_one(spec):
    policy, data = make(spec)
    cache_features(policy, data)
    data[keys.LOG_PROB] = policy.get_dist(data.clone()).log_prob(data[keys.CHUNK]).detach()
    losses = RFTFPPOLoss(policy, kl_coeff=0)(data)
    # Attention has one kernel with gradients and one without, which round differently.
    assert float(losses["max_ratio"]) == pytest.approx(1.0, abs=1e-5)


def test_what_is_kept_of_a_decision(spec):
    policy, data = make(spec)
    needed = cache_bytes(policy, data)
    kept = cache_features(policy, data)["cache"]
    assert set(kept.keys()) == {*PICTURES[spec.kind], "text"}
    patches = 1 + spec.config.image.grid**2
    for name in PICTURES[spec.kind]:
        window = () if name == "goal_image" else (LENGTH,)
        assert kept[name].shape == (STEPS, *window, patches, spec.config.image.dim)
    assert kept["text"].shape == (STEPS, spec.config.text.dim)
    assert needed == sum(value.numel() * value.element_size() for value in kept.values())
    without = replace(spec, wrist=False)
    assert "wrist_image" not in cache_features(*make(without))["cache"]


@pytest.mark.parametrize(
    ("layers", "pictures", "text"),
    [(["to_q"], True, True), (["to_q", "qkv"], False, True), (["q_proj"], True, False)],
)
def test_adapters_in_an_encoder_end_its_caching(spec, layers, pictures, text):
    peft = pytest.importorskip("peft")
    policy, data = make(spec)
    add_lora(policy, peft.LoraConfig(r=2, target_modules=layers), part="module.0")
    kept = set(cache_features(policy, data)["cache"].keys())
    assert kept == {*PICTURES[spec.kind] * pictures, *["text"] * text}


def test_weights_keep_their_names(spec):
    policy, _ = make(spec)
    network = policy[0].module.network
    expected = {f"module.0.module.network.{name}" for name in network.state_dict()}
    scale = {name for name in policy.state_dict() if name.endswith(".raw")}
    assert set(policy.state_dict()) == expected | scale


def test_the_progress_of_gr_mg_reads_pictures():
    spec = SPECS["gr_mg"]
    policy, data = make(spec)
    value_model = gr_mg_value_model(policy, spec)
    before = value_model(data.copy())["temporal_value"]
    kept = cache_features(policy, data)
    assert torch.equal(value_model(kept)["temporal_value"], before)
