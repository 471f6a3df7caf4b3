"""Action tokens one after another: drawn with a cache, scored in one forward."""

import re

import pytest
import torch
from torch.distributions import kl_divergence
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import RFTFPPOLoss, load_policy, save_policy
from rftf_torchrl.policies.settings import PolicyConfig, Sizes
from rftf_torchrl.policies.transformers_vla.options import transformers_problems
from rftf_torchrl.recipes.train_bc import cloning_loss

pytest.importorskip("transformers")

FAMILIES = ["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"]
CHUNK, LOG_PROB = ("vla_action", "chunk"), ("vla_action", "log_probs")
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def make(described, checkpoint, observations):
    def policy(family, **options):
        spec = described(family, decoding="autoregressive", **{"state_dim": 4, **options})
        torch.manual_seed(0)
        data = spec.observation_transform()(observations.clone())
        return spec.load(checkpoint(family)), data.exclude("language_instruction")

    return policy


@every_family
def test_the_cache_changes_nothing(make, family):
    """Greedy tokens are the best ones of the forward that scores them."""
    policy, data = make(family)
    with torch.no_grad():  # otherwise some tiny model repeats one token for ever
        policy.module[0].model.network.backbone.get_output_embeddings().weight.normal_()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        out = policy(data.clone())
    assert torch.equal(out["logits"].argmax(-1), out["action_bins"])
    assert out[CHUNK].shape == (5, 2, 3)
    assert out["action_bins"].unique().numel() >= 3


@every_family
def test_a_token_depends_on_those_before_it_alone(make, family):
    policy, data = make(family)
    data[CHUNK] = torch.linspace(-1, 1, 30).reshape(5, 2, 3)
    before = policy.get_dist(data.clone()).logits
    changed = data.clone()
    changed[CHUNK][:, 0, 2] = -changed[CHUNK][:, 0, 2].sign()  # the third of six tokens
    after = policy.get_dist(changed).logits
    difference = (after - before).abs().amax(-1).flatten(1)
    assert difference[:, :3].max() < 1e-6
    assert difference[:, 3:].min() > 1e-6


@every_family
def test_logits_are_those_of_the_whole_model(described, checkpoint, observations, family):
    spec = described(family, decoding="autoregressive")
    policy = spec.load(checkpoint(family))
    network = policy.module[0].model.network
    data = spec.observation_transform()(observations)
    with torch.no_grad():
        data = policy(data)
    tokens = torch.tensor(spec.action_tokens)[data["action_bins"]].flatten(1)
    for row in range(5):
        inputs = data["vla_inputs"][row]
        prompt = inputs["input_ids"][inputs["attention_mask"]]
        ids = torch.cat([prompt, tokens[row]])[None]
        pixels = network.normalised(inputs["pixel_values"])
        arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if family == "paligemma":
            arguments["token_type_ids"] = (torch.arange(ids.shape[1]) >= len(prompt)).long()[None]
        elif family.startswith("qwen"):
            arguments["image_grid_thw"] = inputs["image_grid_thw"]
            arguments["mm_token_type_ids"] = (ids == network.image_token_id).int()
        else:
            pixels = pixels[None]
        with torch.no_grad():
            expected = network.backbone(pixel_values=pixels, **arguments).logits[0, -7:-1]
        expected = expected[:, list(spec.action_tokens)].unflatten(0, (2, 3))
        torch.testing.assert_close(data["logits"][row], expected, atol=1e-5, rtol=1e-4)


@every_family
def test_batched_equals_one_by_one(make, family):
    policy, data = make(family)
    data = policy(data.clone())
    alone = torch.stack([policy.get_dist(row.clone()).log_prob(row[CHUNK]) for row in data])
    torch.testing.assert_close(alone, data[LOG_PROB], atol=1e-5, rtol=1e-5)
    single = policy(data[0].exclude("vla_action", "logits", "action_bins"))
    assert single[CHUNK].shape == (2, 3)
    assert single[LOG_PROB].shape == ()


def test_tokens_are_drawn_from_what_is_scored(make):
    policy, data = make("smolvlm", chunk_size=1, action_dim=2, bins=3, temperature=0.05)
    many = data[:1].expand(4000).clone()
    torch.manual_seed(0)
    with torch.no_grad():
        out = policy(many)
    first, second = out["action_bins"].flatten(1).unbind(1)
    log_probs = out["logits"].log_softmax(-1)[:, 0]
    assert out["logits"][:, 0, 0].std(0).max() < 1e-5, "the first token is given nothing"
    for given in range(3):
        share = (first == given).float().mean()
        assert abs(share - log_probs[0, 0, given].exp()) < 0.03
        chosen = first == given
        if chosen.sum() > 500:
            expected = log_probs[chosen][0, 1].exp()
            found = torch.bincount(second[chosen], minlength=3) / chosen.sum()
            torch.testing.assert_close(found, expected, atol=0.06, rtol=0)
    by_hand = log_probs.gather(-1, out["action_bins"].flatten(1).unsqueeze(-1)).sum((1, 2))
    torch.testing.assert_close(out[LOG_PROB], by_hand)


@every_family
def test_the_ratio_of_the_first_minibatch_is_one(make, family):
    policy, data = make(family)
    policy.train()
    with torch.no_grad():
        data = policy(data)
    data["advantage"] = torch.linspace(-1, 1, 5).unsqueeze(-1)
    loss_module = RFTFPPOLoss(policy, reference_actor=policy)
    losses = loss_module(loss_module.add_reference(data))
    assert float(losses["mean_ratio"]) == float(losses["max_ratio"]) == 1.0
    assert float(losses["kl_reference"]) == 0.0
    losses["loss_objective"].backward()
    gradients = loss_module.actor_network_params.flatten_keys(".")
    reached = [n for n, p in gradients.items() if p.grad is not None and p.grad.abs().max() > 0]
    assert any("lm_head" in name or "embed_tokens" in name for name in reached)


def test_a_chunk_of_the_step_before_is_forgotten(make):
    policy, data = make("smolvlm")
    stale = policy(data.clone())
    torch.manual_seed(1)
    fresh = policy(data.clone())
    torch.manual_seed(1)
    again = policy(stale.clone())
    assert torch.equal(again[CHUNK], fresh[CHUNK])
    assert not torch.equal(again[CHUNK], stale[CHUNK])


def test_the_divergence_is_that_of_the_conditionals(make):
    policy, data = make("smolvlm")
    other, _ = make("smolvlm", temperature=2.0)
    with torch.no_grad():
        data = policy(data)
    p, q = policy.get_dist(data.clone()), other.get_dist(data.clone())
    expected = (p.logits.exp() * (p.logits - q.logits)).sum((-1, -2, -3))
    torch.testing.assert_close(kl_divergence(p, q), expected)
    data["vla_action", "executed"] = torch.tensor([[True, False]]).expand(5, 2)
    p = policy.get_dist(data.clone())
    first = (p.logits.exp() * (p.logits - q.logits)).sum(-1)[:, 0].sum(-1)
    torch.testing.assert_close(kl_divergence(p, q), first)


def test_it_is_saved_and_loaded(make, described, tmp_path):
    policy, data = make("qwen2_5_vl")
    spec = described("qwen2_5_vl", decoding="autoregressive", state_dim=4)
    save_policy(policy, spec, tmp_path / "policy.safetensors")
    loaded, found = load_policy(tmp_path / "policy.safetensors")
    assert found == spec
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(loaded(data.clone())["logits"], policy(data.clone())["logits"])


def test_a_chunk_of_another_size(make):
    policy, data = make("smolvlm")
    data[CHUNK] = torch.zeros(5, 3, 3)
    expected = (
        "('vla_action', 'chunk') has shape (5, 3, 3), expected it to end in (chunk_size, "
        "action_dim) = (2, 3)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        policy.get_dist(data)


def test_cloning_scores_a_token_after_the_demonstrated_ones(make):
    """TorchRL's BCLoss acts first, and would score it after the policy's own."""
    policy, data = make("smolvlm")
    with torch.no_grad():
        policy.module[0].model.network.backbone.get_output_embeddings().weight.normal_()
    data[CHUNK] = torch.linspace(-1, 1, 30).reshape(5, 2, 3)
    expected = -policy.get_dist(data.clone()).log_prob(data[CHUNK]).mean()
    policy.module[0]._draw = None  # it is not asked to act
    found = cloning_loss(policy)(data)["loss_bc"]
    torch.testing.assert_close(found, expected)
    found.backward()
    assert policy.module[0].model.network.backbone.get_output_embeddings().weight.grad.any()


@every_family
def test_a_token_runs_through_the_model_once(make, family):
    policy, data = make(family)
    seen = []
    policy.module[0].model.network.trunk.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    policy(data.clone())
    assert seen[1:6] == [1] * 5


def test_options_of_tokens_are_refused_for_other_heads():
    settings = PolicyConfig("transformers", {"head": "gaussian", "decoding": "autoregressive"}, "x")
    sizes = Sizes(chunk_size=2, image_size=32, wrist=False, robot="metaworld")
    expected = (
        "policy.options.decoding=autoregressive has no effect with policy.options.head=gaussian: "
        "it is for tokens"
    )
    assert transformers_problems(settings, sizes) == [expected]
    settings = PolicyConfig("transformers", {"trained": "head", "decoding": "autoregressive"}, "x")
    (problem,) = transformers_problems(settings, sizes)
    assert problem.endswith("would train; choose policy.options.trained=language or all")
