"""A vision tower that does not train runs once for all epochs, and nothing else changes."""

import copy

import pytest
import torch

from rftf_torchrl import RFTFPPOLoss, add_lora, cache_bytes, cache_features
from rftf_torchrl.policies.transformers_vla.backbone import tower_of

pytest.importorskip("transformers")

FAMILIES = ["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"]
HEADS = {
    "tokens": {"head": "tokens"},
    "gaussian": {"head": "gaussian"},
    "flow": {"head": "flow", "flow_steps": 2},
    "autoregressive": {"decoding": "autoregressive"},
}


def network_of(policy):
    return next(m for m in policy.modules() if hasattr(m, "frozen_features"))


def calls_of_tower(policy):
    """One entry a call of the tower from now on; in copies of the policy too."""
    calls = []
    tower_of(network_of(policy).backbone).register_forward_hook(lambda *_: calls.append(1))
    return calls


def cached_names(data):
    return set(data["cache"].keys()) if "cache" in data else set()


@pytest.fixture
def make(described, checkpoint, observations):
    """A function to a policy and five decisions of a rollout, as the loss takes them."""

    def made(family, head="tokens", **options):
        spec = described(family, state_dim=4, **HEADS[head], **options)
        torch.manual_seed(0)
        policy = spec.load(checkpoint(family))
        data = spec.observation_transform()(observations.clone())
        with torch.no_grad():
            data = policy(data.exclude("language_instruction"))
        assert not cached_names(data)
        data["advantage"] = torch.linspace(-1, 1, 5).unsqueeze(-1)
        return policy, data

    return made


def terms_and_gradients(loss, data):
    losses = loss(loss.add_reference(data))
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    gradients = {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}
    return losses, gradients


@pytest.mark.parametrize(
    ("head", "functional"), [("tokens", True), *((head, False) for head in HEADS)]
)
@pytest.mark.parametrize("trained", ["language", "head"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_without_a_cache(make, family, head, trained, functional):
    policy, data = make(family, head, trained=trained)
    plain = RFTFPPOLoss(copy.deepcopy(policy), reference_actor=policy, functional=functional)
    expected, gradients = terms_and_gradients(plain, data.copy())
    calls = calls_of_tower(policy)
    cache_features(policy, data)
    assert len(calls) == 1
    loss = RFTFPPOLoss(policy, reference_actor=policy, functional=functional)
    for _ in range(2):
        loss.zero_grad()
        found, reached = terms_and_gradients(loss, data)
    assert len(calls) == 1
    assert float(found["max_ratio"]) == float(found["mean_ratio"]) == 1
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    assert reached.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(reached[name], gradient, atol=1e-5, rtol=1e-4)
    assert not any(".vision_" in name or ".visual" in name for name in reached)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connector_that_trains_reads_the_towers_output(make, family):
    policy, data = make(family, trained="language")
    whole = {"image_tokens", "deepstack"} if family == "qwen3_vl" else {"image_tokens"}
    split = not family.startswith("qwen")
    assert cached_names(cache_features(policy, data.copy())) == ({"patches"} if split else whole)
    policy, data = make(family, trained="head")
    data = cache_features(policy, data)
    assert cached_names(data) == whole
    network = network_of(policy)
    assert data["cache", "image_tokens"].shape == (5, data["cache", "image_tokens"].shape[1], 32)
    expected = network.image_features(data["vla_inputs"])
    for name, value in expected.items():
        torch.testing.assert_close(data["cache", name], value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_that_trains_runs_in_every_forward(make, family):
    policy, data = make(family, trained="all")
    assert cache_bytes(policy, data) == 0
    assert not cached_names(cache_features(policy, data))
    calls = calls_of_tower(policy)
    loss = RFTFPPOLoss(policy, kl_coeff=0, functional=False)
    loss(data)["loss_objective"].backward()
    assert len(calls) == 1
    tower = tower_of(network_of(policy).backbone)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in tower.parameters())


@pytest.mark.parametrize("family", ["smolvlm", "paligemma", "qwen3_vl"])
@pytest.mark.parametrize("in_tower", [False, True])
def test_adapters_in_the_tower_end_its_caching(make, family, in_tower):
    """With adapters on the language model alone, everything else is frozen, the connector too."""
    peft = pytest.importorskip("peft")
    policy, data = make(family, trained="all")
    fine = "qkv" if family == "qwen3_vl" else "out_proj"
    targets = ["down_proj", *[fine] * in_tower]
    add_lora(policy, peft.LoraConfig(r=2, target_modules=targets))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    expected = RFTFPPOLoss(policy, reference_actor="adapters_off", functional=False)(
        RFTFPPOLoss(policy, reference_actor="adapters_off").add_reference(data.copy())
    )
    names = cached_names(cache_features(policy, data))
    assert ("image_tokens" in names) == (not in_tower)
    assert "patches" not in names
    calls = calls_of_tower(policy)
    loss = RFTFPPOLoss(policy, reference_actor="adapters_off", functional=False)
    found, gradients = terms_and_gradients(loss, data)
    assert len(calls) == (2 if in_tower else 0), "of reference and loss"
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    adapted = {n for n, p in loss.named_parameters() if "lora_" in n}
    assert adapted <= gradients.keys()


def test_any_batch_size_and_pieces(make):
    policy, data = make("qwen3_vl", "gaussian", trained="language")
    whole = cache_features(policy, data.copy(), minibatch=5)
    pieces = cache_features(policy, data[:4].reshape(2, 2), minibatch=3)
    assert pieces["cache"].batch_size == (2, 2)
    for name, value in whole["cache"].items():
        torch.testing.assert_close(
            pieces["cache", name].flatten(0, 1), value[:4], atol=1e-6, rtol=1e-5
        )
    rows = policy.get_dist(pieces).mean.flatten(0, 1)
    torch.testing.assert_close(rows, data["loc"][:4], atol=1e-6, rtol=1e-5)


def test_two_pictures(described, checkpoint, observations):
    observations["observation", "wrist_image"] = observations["observation", "image"].flip(0)
    for family in FAMILIES:
        spec = described(family, head="gaussian", wrist_image=True, trained="language")
        policy = spec.load(checkpoint(family))
        data = spec.observation_transform()(observations.clone())
        plain = policy.get_dist(data.clone()).mean
        kept = policy.get_dist(cache_features(policy, data.clone())).mean
        torch.testing.assert_close(kept, plain, atol=1e-6, rtol=1e-5)


def test_in_bfloat16_the_first_ratio_is_one(make):
    policy, data = make("smolvlm", trained="language")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        cache_features(policy, data)
        data["vla_action", "log_probs"] = policy.get_dist(data.copy()).log_prob(
            data["vla_action", "chunk"]
        )
        losses = RFTFPPOLoss(policy, kl_coeff=0)(data)
    assert float(losses["max_ratio"]) == 1


def test_weights_keep_their_names(make):
    policy, _ = make("qwen3_vl", trained="language")
    network = network_of(policy)
    prefix = next(name for name, module in policy.named_modules() if module is network)
    own = {name for name in policy.state_dict() if not name.startswith(f"{prefix}.backbone.")}
    expected = {"queries", "image_mean", "image_std", "state_mean", "state_std"}
    expected |= {"state.weight", "state.bias"}
    assert own == {f"{prefix}.{name}" for name in expected}
