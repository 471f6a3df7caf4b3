"""One contract between all policies, ours and TorchRL's, and the losses that fine-tune them."""

import copy
import pickle
import re

import pytest
import torch
from every_policy import ESTIMATED, POLICIES, TwoBumps, decide, every_policy
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, set_composite_lp_aggregate
from torch import nn
from torch.distributions import Normal, kl_divergence
from torchrl.modules import IndependentNormal
from torchrl.modules.vla import TinyVLA
from torchrl.objectives import ClipPPOLoss, SoftUpdate

from rftf_torchrl import RFTFPPOLoss
from rftf_torchrl.objectives import reference
from rftf_torchrl.objectives.reference import StoredReference

every = pytest.mark.parametrize("name", POLICIES)
either = pytest.mark.parametrize("functional", [True, False])


@pytest.fixture(autouse=True)
def one_log_probability_per_head():
    torch.manual_seed(0)
    with set_composite_lp_aggregate(False):
        yield


def critic():
    return TensorDictModule(nn.Linear(5, 1), ["state"], ["state_value"])


def moved(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def terms(out):
    return [value for name, value in out.items() if name.startswith("loss_")]


def stock(actor, **options):
    loss = ClipPPOLoss(actor, None, critic_coeff=None, **options)
    if isinstance(actor, TinyVLA):
        places = actor.tensor_keys
        loss.set_keys(action=places.action_tokens, sample_log_prob=places.log_probs)
    return loss


@every
@either
def test_it_is_clip_ppo_and_a_divergence_that_is_zero_at_the_start(name, functional):
    actor = every_policy(name)
    data = decide(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, functional=functional)
    loss.add_reference(data)
    assert abs(float(loss(data)["kl_reference"])) < 1e-6
    moved(actor)
    torch.manual_seed(1)  # entropies without a closed form are drawn
    expected = stock(actor, functional=functional)(data)
    torch.manual_seed(1)
    out = loss(data)
    assert set(out.keys()) == set(loss.out_keys)
    for key, value in expected.items(True, True):
        assert torch.equal(out[key], value)
    assert out["kl_reference"] > 0
    torch.testing.assert_close(out["loss_kl"].detach(), 0.1 * out["kl_reference"])


@every
@either
def test_every_weight_gets_a_gradient_and_the_reference_none(name, functional):
    actor = every_policy(name)
    data = decide(actor)
    loss = RFTFPPOLoss(actor, critic(), reference_actor=actor, functional=functional)
    data["value_target"] = torch.randn(8, 1)
    loss.add_reference(data)
    moved(actor)
    sum(terms(loss(data))).backward()
    without = {n for n, p in loss.named_parameters() if p.grad is None or not p.grad.any()}
    assert not {n for n in without if "text_embedding" not in n}, "each weight of the two networks"
    assert not any(p.requires_grad for p in loss.reference_actor.parameters())


@every
def test_keyword_arguments_do_what_a_tensordict_does(name):
    actor = every_policy(name)
    data = decide(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, entropy_bonus=False)
    loss.add_reference(data)
    moved(actor)
    given = {
        "_".join((key,) if isinstance(key, str) else key): data.get(key) for key in loss.in_keys
    }
    out = loss(data.select(*loss.in_keys))
    found = loss(**given)
    for key, value in zip(loss.out_keys, found, strict=True):
        assert torch.equal(value, out[key]), key


@every
def test_a_distribution_scores_several_samples_at_once(name):
    """Stock losses do that where they draw an entropy, under the compiler always."""
    actor = every_policy(name)
    distribution = actor.get_dist(decide(actor))
    sample = distribution.sample((3,))
    scored = distribution.log_prob(sample)
    assert scored.shape[:2] == (3, 8)
    for at in range(3):
        torch.testing.assert_close(scored[at], distribution.log_prob(sample[at]))


@every
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_reduction(name, reduction):
    actor = every_policy(name)
    data = decide(actor)
    mean = RFTFPPOLoss(actor, reference_actor=actor, entropy_bonus=False)
    mean.add_reference(data)
    other = RFTFPPOLoss(actor, reference_actor=actor, entropy_bonus=False, reduction=reduction)
    moved(actor)
    expected, out = mean(data), other(data)
    assert out["kl_reference"] == expected["kl_reference"]
    each = out["loss_kl"] if reduction == "none" else out["loss_kl"] / 8
    torch.testing.assert_close(each.mean(), expected["loss_kl"])


@every
def test_copies_and_state_dicts_are_the_same_loss(name):
    actor = every_policy(name)
    data = decide(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, entropy_bonus=False)
    loss.add_reference(data)
    moved(actor)
    expected = terms(loss(data))
    other = RFTFPPOLoss(every_policy(name), reference_actor=actor, entropy_bonus=False)
    other.load_state_dict(loss.state_dict())
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), other):
        assert all(map(torch.equal, terms(copied(data)), expected))


@every
def test_data_under_other_names(name):
    actor = every_policy(name)
    data = decide(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, entropy_bonus=False)
    expected = terms(loss(loss.add_reference(data.copy())))
    loss.set_keys(advantage=("named", "gain"), reference=("named", "prior"))
    data["named"] = TensorDict({"gain": data.pop("advantage")}, data.batch_size)
    assert all(map(torch.equal, terms(loss(loss.add_reference(data))), expected))
    assert data.get("reference", None) is None
    assert {key[:2] for key in loss.in_keys if key[0] == "named"} == {
        ("named", "gain"),
        ("named", "prior"),
    }


@every
@pytest.mark.filterwarnings("ignore:Found an eps value")
def test_the_proximal_policy_is_held_in_target_parameters(name):
    actor = every_policy(name)
    data = decide(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, delay_actor=True, entropy_bonus=False)
    updater = SoftUpdate(loss, tau=1.0)  # takes all of the new weights
    loss.add_reference(data)
    moved(actor)
    assert loss(data)["kl_approx"] != 0
    updater.step()
    assert loss(data)["kl_approx"].abs() < 1e-6
    assert loss(data)["kl_reference"] > 0


@every
def test_closed_form_where_torch_has_one(name, monkeypatch):
    asked = []
    exact = reference._closed_form
    monkeypatch.setattr(reference, "_closed_form", lambda *a: asked.append(exact(*a)) or asked[-1])
    actor = every_policy(name)
    data = decide(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, entropy_bonus=False)
    loss(loss.add_reference(data))
    assert (not asked or asked[0] is None) == (name in ESTIMATED)


def test_the_estimate_and_its_gradient_are_those_of_the_divergence(monkeypatch):
    """Over actions of the old policy, between two normals whose divergence is known."""
    torch.manual_seed(0)
    count = 400_000
    loc = torch.tensor([0.3, -0.2], requires_grad=True)
    ones = torch.ones(2)
    old, prior = IndependentNormal(0.9 * loc.detach(), ones), IndependentNormal(0 * loc, ones)
    current = IndependentNormal(loc, 0.9 * ones)
    action = old.sample((count,))
    data = TensorDict({"action": action}, [count])
    data["reference", "log_prob"] = prior.log_prob(action).detach()
    weight = current.log_prob(action) - old.log_prob(action)
    found = StoredReference(every_policy("get_dist_alone")).divergence(
        None,
        current,
        weight.unsqueeze(-1),
        data,
        place="reference",
        actions=["action"],
        batch_dims=1,
    )
    assert (found >= 0).all()
    expected = kl_divergence(Normal(loc, 0.9 * ones), Normal(0 * loc, ones)).sum()
    torch.testing.assert_close(found.mean(), expected, rtol=0.01, atol=0)
    (gradient,) = torch.autograd.grad(found.mean(), loc)
    torch.testing.assert_close(gradient, loc.detach(), rtol=0.03, atol=0)


def test_a_mixture_of_two_equal_parts_is_its_part():
    loc, scale = torch.randn(4, 2), torch.ones(4, 2)
    value = torch.randn(4, 2)
    torch.testing.assert_close(
        TwoBumps(loc, scale, gap=0.0).log_prob(value),
        IndependentNormal(loc, scale).log_prob(value),
    )


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            lambda: nn.Linear(2, 2),
            "the policy is a Linear, which has no get_dist and in_keys: a loss needs its "
            "distribution. Build it with gaussian_actor, token_actor, flow_actor or TorchRL's "
            "ProbabilisticActor.",
        ),
        (
            lambda: TinyVLA(action_dim=2, chunk_size=3),
            "the policy is a TinyVLA with a continuous head, which has no distribution: wrap it by "
            "gaussian_actor, or build it with action_head='tokens'.",
        ),
        (
            lambda: TinyVLA(
                action_dim=2, chunk_size=3, action_head="tokens", vocab_size=4, return_logits=True
            ),
            "the policy is a TinyVLA with return_logits=True: its get_dist would read the stored "
            "logits, and no gradient would reach its weights. Build it with return_logits=False.",
        ),
    ],
)
def test_a_policy_without_a_distribution_is_refused_when_the_loss_is_built(policy, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RFTFPPOLoss(policy())
