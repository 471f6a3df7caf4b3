"""What TorchRL's tests ask of a loss, asked of those of ours that clone and rank.

Those of RFTFPPOLoss, which depend on the policy, are in ``test_every_policy_and_loss``.
"""

import copy
import pickle

import pytest
import torch
from every_policy import A, H, decide, every_policy, states
from tensordict import TensorDict
from torch import nn
from torchrl.objectives.utils import SoftUpdate

from rftf_torchrl import (
    ArmGripperCloningLoss,
    FlowMatchingLoss,
    RFTFPPOLoss,
    TemporalRankingLoss,
    TemporalValueModel,
    keys,
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def demonstrations(count=6):
    data = states(count).exclude("language_instruction")
    data[keys.CHUNK] = 2.0 * torch.randint(2, (count, H, A)) - 1
    return data


def clips(count=6, frames=4):
    tokens = torch.randint(1, 9, (count, 1, 4)).expand(count, frames, 4).contiguous()
    success = torch.arange(count) % 3 != 0
    return TensorDict(
        {
            "state": torch.randn(count, frames, 5),
            "instruction": {"tokens": tokens},
            "task_id": torch.zeros(count, frames, 1, dtype=torch.int64),
            "trajectory_success": success[:, None, None].expand(count, frames, 1).contiguous(),
        },
        [count, frames],
    )


class Score(nn.Module):
    def __init__(self):
        super().__init__()
        self.state, self.word = nn.Linear(5, 1), nn.Embedding(10, 1)

    def forward(self, state, tokens):
        return self.state(state) + self.word(tokens).mean(-2)


def ranking():
    model = TemporalValueModel(Score(), in_keys=["state", keys.TOKENS])
    return TemporalRankingLoss(model, wrong_instruction=1.0, failures=0.5)


LOSSES = {
    "arm_gripper_cloning": (
        lambda: ArmGripperCloningLoss(every_policy("arm_gripper")),
        demonstrations,
    ),
    "flow_matching": (lambda: FlowMatchingLoss(every_policy("flow")), demonstrations),
    "ranking": (ranking, clips),
}
every = pytest.mark.parametrize("name", LOSSES)


def built(name):
    build, make_data = LOSSES[name]
    return build(), make_data()


def seeded(loss, *args, **named):
    torch.manual_seed(1)  # flow matching draws times and noise
    return loss(*args, **named)


def total(out):
    return sum(value for name, value in out.items() if name.startswith("loss_"))


def flat(key):
    return key if isinstance(key, str) else "_".join(key)


@every
def test_every_weight_that_the_loss_trains_gets_a_gradient(name):
    loss, data = built(name)
    total(seeded(loss, data)).backward()
    untrained = {n for n, p in loss.named_parameters() if p.grad is None}
    assert all("scale" in n or n.split(".")[-1] == "raw" for n in untrained)
    assert any(p.grad is not None and p.grad.any() for p in loss.parameters())


@every
def test_in_and_out_keys_are_true(name):
    loss, data = built(name)
    assert list(seeded(loss, data).keys()) == loss.out_keys
    needed = data.select(*loss.in_keys)
    assert set(seeded(loss, needed).keys()) == set(loss.out_keys)
    for key in loss.in_keys:
        with pytest.raises((KeyError, TypeError, AttributeError)):
            seeded(loss, needed.exclude(key))


@every
def test_keyword_arguments_do_what_a_tensordict_does(name):
    loss, data = built(name)
    expected = seeded(loss, data)
    named = {flat(key): data[key] for key in loss._dispatched_keys if key in data.keys(True)}
    found = seeded(loss, **named)
    found = found if isinstance(found, tuple) else (found,)
    assert all(map(torch.equal, found, expected.values()))


@every
def test_data_under_other_names(name):
    loss, data = built(name)
    expected = seeded(loss, data)
    for field, key in list(vars(loss.tensor_keys).items()):
        if field in ("temporal_value", "tokens", "token_mask") or data.get(key, None) is None:
            continue
        loss.set_keys(**{field: ("other", field)})
        data["other", field] = data.pop(key)
        assert (("other", field) in loss.in_keys) == (key in built(name)[0].in_keys)
    found = seeded(loss, data)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@every
def test_copies_and_state_dicts_are_the_same_loss(name):
    loss, data = built(name)
    expected = total(seeded(loss, data))
    other, _ = built(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(loss.state_dict())
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), other):
        assert torch.equal(total(seeded(copied, data)), expected)


@every
def test_it_holds_the_network_itself_and_no_target(name):
    loss, _ = built(name)
    assert loss.functional is False
    module = "value_model" if name == "ranking" else "actor_network"
    assert loss.get_stateful_net(module) is getattr(loss, module)
    with pytest.raises(RuntimeError, match="Did not find any target parameters"):
        SoftUpdate(loss, eps=0.5)


@every
def test_selected_outputs(name):
    loss, data = built(name)
    first = loss.out_keys[0]
    loss.select_out_keys(first)
    assert list(seeded(loss, data).keys()) == [first]
    loss.reset_out_keys()
    assert len(seeded(loss, data).keys()) == len(loss.out_keys)


@every
def test_vmap_randomness_is_told_by_dropout_as_of_stock_losses(name):
    loss, _ = built(name)
    assert loss.vmap_randomness == "error"
    loss, _ = built(name)
    loss.part = nn.Dropout()
    assert loss.vmap_randomness == "different"


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield lambda loss: torch.compile(loss, fullgraph=True, backend="eager")
    torch._dynamo.reset()


@every
def test_the_compiler_takes_it_in_one_graph(name, compiler):
    loss, data = built(name)
    expected, found = seeded(loss, data), seeded(compiler(loss), data)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize("policy", ["stock_normal", "get_dist_alone"])
def test_the_compiler_takes_the_ppo_loss_in_one_graph(policy, compiler):
    """With a divergence in closed form, and with one that is estimated."""
    actor = every_policy(policy)
    data = decide(actor).exclude("language_instruction")
    loss = RFTFPPOLoss(actor, reference_actor=actor, entropy_bonus=False)
    loss.add_reference(data)
    expected, found = loss(data), compiler(loss)(data)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)


def test_out_keys_follow_the_weights_of_the_terms():
    loss = ranking()
    loss.failures = 0.0
    assert loss.out_keys == ["loss_ranking", "pairwise_accuracy", "loss_wrong_instruction"]
    loss.wrong_instruction = 0.0
    assert loss.out_keys == ["loss_ranking", "pairwise_accuracy"]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("kind", "policy"), [(ArmGripperCloningLoss, "arm_gripper"), (FlowMatchingLoss, "flow")]
)
def test_reductions_of_cloning(kind, policy, padded):
    data, actor = demonstrations(), every_policy(policy)
    real = torch.ones(len(data), H, dtype=torch.bool)
    if padded:
        real[1, 1:] = False
        data[keys.CHUNK_IS_PAD] = ~real
    mean, each, whole = (
        seeded(kind(actor, reduction=reduction), data)["loss_bc"]
        for reduction in ("mean", "none", "sum")
    )
    assert each.shape == data[keys.CHUNK].shape[:-1]
    assert bool((each != 0).eq(real).all())
    torch.testing.assert_close(whole, each.sum())
    torch.testing.assert_close(mean, each[real].mean())
    with pytest.raises(ValueError, match=r"^reduction='median': must be 'mean', 'sum' or 'none'$"):
        kind(actor, reduction="median")
