import copy
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import (
    ChunkVelocity,
    LoraReference,
    RFTFPPOLoss,
    adapter_state_dict,
    adapters_off,
    add_lora,
    flow_actor,
    gaussian_actor,
    keys,
    load_adapter_state_dict,
    merge_lora,
)

peft = pytest.importorskip("peft")


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.up = nn.Linear(5, 8), nn.Linear(8, 8)

    def forward(self, state):
        return self.up(self.q_proj(state).tanh()).tanh()


def config(**options):
    return peft.LoraConfig(r=2, target_modules=["q_proj", "up"], **options)


def gaussian():
    network = nn.Sequential(Backbone(), nn.Linear(8, 6), nn.Unflatten(-1, (3, 2)))
    return gaussian_actor(TensorDictModule(network, ["state"], ["loc"]), chunk_size=3, action_dim=2)


def flow():
    network = TensorDictModule(nn.Sequential(Backbone()), ["state"], ["features"])
    velocity = ChunkVelocity(8, (3, 2), width=8)
    return flow_actor(network, velocity, chunk_size=3, action_dim=2)


def with_lora(build=gaussian):
    return add_lora(build(), config(), part=Backbone)


def moved(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return policy


@torch.no_grad()
def decisions(policy, count=6):
    data = policy(TensorDict({"state": torch.randn(count, 5)}, [count]))
    data["advantage"] = torch.randn(count, 1)
    return data


def test_only_adapters_and_what_lies_outside_the_part_train():
    policy = with_lora()
    trained = {name for name, value in policy.named_parameters() if value.requires_grad}
    assert {name.split(".")[-2] for name in trained if "lora" in name} == {"default"}
    outside = {name for name in trained if "lora" not in name}
    assert outside == {"module.0.module.1.weight", "module.0.module.1.bias", "module.1.module.raw"}
    assert not any("base_layer" in name for name in trained)


@pytest.mark.parametrize("build", [gaussian, flow])
@pytest.mark.parametrize("functional", [True, False])
def test_the_reference_is_the_original_bit_for_bit(build, functional):
    original = build()
    policy = add_lora(copy.deepcopy(original), config(), part=Backbone)
    data = decisions(original)
    copied = RFTFPPOLoss(original, reference_actor=original)
    expected = copied.add_reference(data.copy())["reference"]
    loss = RFTFPPOLoss(policy, reference_actor="adapters_off", functional=functional)
    moved(policy)
    before = {name: value.clone() for name, value in policy.named_parameters()}
    found = loss.add_reference(data.copy())["reference"]
    assert set(found.keys(True, True)) == set(expected.keys(True, True))
    for key in expected.keys(True, True):
        assert torch.equal(found[key], expected[key])
    for name, value in policy.named_parameters():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(decisions(policy)[keys.CHUNK], decisions(original)[keys.CHUNK])


@pytest.mark.parametrize("build", [gaussian, flow])
@pytest.mark.parametrize("functional", [True, False])
def test_ppo_trains_adapters_and_heads_and_nothing_else(build, functional):
    policy = with_lora(build)
    loss = RFTFPPOLoss(policy, reference_actor="adapters_off", functional=functional)
    data = loss.add_reference(decisions(policy))
    out = loss(data)
    assert out["max_ratio"] == 1
    assert out["kl_reference"] == 0
    frozen = {n: v.clone() for n, v in policy.named_parameters() if not v.requires_grad}
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        out = loss(loss.add_reference(data))
        (out["loss_objective"] + out["loss_kl"]).backward()
        optimizer.step()
    after = dict(policy.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert all(after[name].grad is None for name in frozen)
    assert all(value.grad is not None for value in after.values() if value.requires_grad)
    assert loss(data)["kl_reference"] > 0


def test_a_second_copy_is_kept_of_the_trained_heads_alone():
    reference = LoraReference(with_lora())
    assert sum(value.numel() for value in reference.start.values()) == 8 * 6 + 6 + 3 * 2


def test_any_context_manager_can_make_the_reference():
    policy = with_lora()
    loss = RFTFPPOLoss(policy, reference_actor=lambda: adapters_off(policy))
    data = loss.add_reference(decisions(policy))
    assert torch.equal(data["reference", "loc"], data["loc"])


def test_adapters_off_gives_back_flags_where_the_block_raises():
    policy = with_lora()
    flags = {name: value.requires_grad for name, value in policy.named_parameters()}
    moved(policy)
    state = TensorDict({"state": torch.ones(5)})
    on = policy.get_dist(state.copy()).mean

    def interrupted():
        with adapters_off(policy):
            assert not torch.equal(policy.get_dist(state.copy()).mean, on)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert {name: value.requires_grad for name, value in policy.named_parameters()} == flags
    assert torch.equal(policy.get_dist(state.copy()).mean, on)


def test_adapters_are_saved_alone_and_loaded_into_the_start():
    start = gaussian()
    trained = moved(add_lora(copy.deepcopy(start), config(), part=Backbone))
    saved = adapter_state_dict(trained)
    assert not any("base_layer" in name for name in saved)
    other = add_lora(copy.deepcopy(start), config(), part=Backbone)
    load_adapter_state_dict(other, saved)
    state = TensorDict({"state": torch.randn(4, 5)}, [4])
    assert torch.equal(other.get_dist(state.copy()).mean, trained.get_dist(state.copy()).mean)


def test_merging_keeps_the_function_and_gives_back_the_names():
    start = gaussian()
    names = set(start.state_dict())
    policy = moved(add_lora(start, config(), part=Backbone))
    state = TensorDict({"state": torch.randn(4, 5)}, [4])
    expected = policy.get_dist(state.copy()).mean
    assert merge_lora(policy) is policy
    assert set(policy.state_dict()) == names
    torch.testing.assert_close(policy.get_dist(state.copy()).mean, expected)
    add_lora(policy, config(), part=Backbone)


def test_the_transformers_model_is_found_by_itself():
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2Model(
        transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=16, n_positions=8)
    )
    policy = nn.Sequential(model, nn.Linear(8, 2))
    add_lora(policy, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    trained = {name for name, value in policy.named_parameters() if value.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"0", "1"}
    assert not policy[0].wte.weight.requires_grad


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: add_lora(with_lora(), config(), part=Backbone),
            "the policy has adapters already: merge_lora(policy) first.",
        ),
        (
            lambda: add_lora(gaussian(), config(lora_dropout=0.1)),
            "lora_dropout is 0.1, expected 0: with dropout, PPO's ratio is not 1 before the first "
            "update.",
        ),
        (
            lambda: add_lora(gaussian(), config(init_lora_weights="pissa")),
            "init_lora_weights is 'pissa', expected True or 'gaussian': others change the weights "
            "or the policy from the start, so that LoraReference would not be the policy that the "
            "adapters started from.",
        ),
        (
            lambda: add_lora(gaussian(), config(modules_to_save=["up"])),
            "modules_to_save is ['up'], expected none: modules outside the part keep training, "
            "and LoraReference keeps their starting values.",
        ),
        (
            lambda: add_lora(gaussian(), config(), part="backbone"),
            "the policy has no part 'backbone'; its parts are ['module'], and theirs.",
        ),
        (
            lambda: add_lora(nn.Sequential(Backbone(), Backbone()), config(), part=Backbone),
            "expected one Backbone in the policy, found 2: ['0', '1']; name it: part='...'.",
        ),
        (
            lambda: add_lora(nn.Sequential(nn.Linear(1, 1)), config(), part=Backbone),
            "expected one Backbone in the policy, found 0; name it: part='...'.",
        ),
        (
            lambda: merge_lora(gaussian()),
            "the policy has no adapters: call add_lora(policy, config) first.",
        ),
        (
            lambda: RFTFPPOLoss(gaussian(), reference_actor="adapters_off"),
            "the policy has no adapters: call add_lora(policy, config) first.",
        ),
        (
            lambda: RFTFPPOLoss(gaussian(), reference_actor="frozen"),
            "reference_actor must be a policy, 'adapters_off', a function that returns a context "
            "manager, or None: got 'frozen'.",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()


def test_all_that_does_not_fit_is_listed_and_nothing_is_loaded():
    policy = add_lora(nn.Sequential(nn.Linear(3, 4)), peft.LoraConfig(r=2, target_modules=["0"]))
    before = {name: value.clone() for name, value in adapter_state_dict(policy).items()}
    state = {"0.lora_A.default.weight": torch.ones(3, 3), "head.weight": torch.ones(1)}
    with pytest.raises(ValueError) as caught:
        load_adapter_state_dict(policy, state)
    assert str(caught.value) == (
        "these adapters do not fit the policy: missing: 0.lora_B.default.weight; not in the "
        "policy: head.weight; 0.lora_A.default.weight has shape (3, 3), expected (2, 3). Call "
        "add_lora with the config they were trained with, and freeze the same parameters."
    )
    after = adapter_state_dict(policy)
    assert all(torch.equal(after[name], value) for name, value in before.items())
