import re
import threading

import pytest
import torch
from _blocks_policy import critic, decisions, gradients, moved, policy, total
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import BCLoss

from rftf_torchrl import (
    ArmGripperCloningLoss,
    RFTFPPOLoss,
    TemporalRankingLoss,
    accumulate_gradients,
    arm_gripper_actor,
    keys,
)


def built(**options):
    torch.manual_seed(0)
    actor = policy()
    data = decisions(actor, 10)
    loss = RFTFPPOLoss(actor, critic(), reference_actor=actor, loss_critic_type="l2", **options)
    loss.add_reference(data)
    moved(loss)
    return loss, data


@pytest.mark.parametrize("micro_batch", [1, 4, 5, 9, 10, 64])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("functional", [True, False])
def test_pieces_give_the_gradient_of_the_whole(micro_batch, normalize, functional):
    loss, data = built(normalize_advantage=normalize, functional=functional)
    whole = loss(data)
    total(whole).backward()
    expected = gradients(loss)
    loss.zero_grad()
    found = accumulate_gradients(loss, data, micro_batch)
    for name, gradient in gradients(loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    for name in set(whole.keys()) - {"ESS", "explained_variance"}:
        torch.testing.assert_close(found[name], whole[name].detach(), rtol=1e-4, atol=1e-6)
    assert loss.normalize_advantage is normalize
    assert not any(value.requires_grad for value in found.values())


def test_equal_weights_or_advantages_by_piece_would_be_seen():
    """The batch is such that the two mistakes change the gradient."""
    loss, data = built(normalize_advantage=True)
    accumulate_gradients(loss, data, 4)
    right = gradients(loss)
    for wrong in ("weights", "advantages"):
        loss.zero_grad()
        for piece in data.split(4):
            if wrong == "weights":
                share = 1 / 3
                piece["advantage"] = (piece["advantage"] - data["advantage"].mean()) / data[
                    "advantage"
                ].std()
                loss.normalize_advantage = False
            else:
                share = len(piece) / 10
                loss.normalize_advantage = True
            (share * total(loss(piece))).backward()
        gap = max(float((g - right[n]).abs().max()) for n, g in gradients(loss).items())
        assert gap > 1e-2


def test_all_of_a_backward_pass_runs_in_the_calling_thread():
    """Layers that run again in it, with dropout, share the process's random generator."""
    loss, data = built(functional=False)
    used = set()
    for network in (loss.actor_network, loss.critic_network):
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        trained[-1].register_hook(lambda grad: used.add(threading.get_ident()))
    accumulate_gradients(loss, data, 4)
    assert used == {threading.get_ident()}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_padding_counts_for_nothing(normalize, micro_batch):
    loss, data = built(normalize_advantage=normalize)
    mask = torch.ones(10, 1, dtype=torch.bool)
    mask[:3] = False
    data["collector", "mask"] = mask
    whole = loss(data)
    total(whole).backward()
    expected = gradients(loss)
    loss.zero_grad()
    found = accumulate_gradients(loss, data, micro_batch)
    for name, gradient in gradients(loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    for name in ("loss_objective", "loss_critic", "loss_kl", "kl_reference"):
        torch.testing.assert_close(found[name], whole[name].detach(), rtol=1e-4, atol=1e-6)


def test_a_loss_that_counts_actions():
    actor = policy()
    loss = BCLoss(actor, loss_function="l1")
    loss.set_keys(action=keys.CHUNK, pad_mask=keys.CHUNK_IS_PAD)
    data = TensorDict({"state": torch.randn(5, 5)}, [5])
    data[keys.CHUNK] = torch.randn(5, 3, 2)
    data[keys.CHUNK_IS_PAD] = torch.rand(5, 3) < 0.4
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        loss(data)["loss_bc"].backward()
        expected = {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}
        loss.zero_grad()
        accumulate_gradients(loss, data, 2, count=lambda piece: (~piece[keys.CHUNK_IS_PAD]).sum())
    assert expected
    for name, gradient in expected.items():
        found = dict(loss.named_parameters())[name].grad
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)


def test_a_cloning_loss_counts_its_actions():
    arm = TensorDictModule(lambda x: (x[..., :5], x[..., 5]), ["raw"], ["arm_loc", "logits"])
    network = TensorDictModule(
        nn.Sequential(nn.Linear(3, 24), nn.Unflatten(-1, (4, 6))), ["state"], ["raw"]
    )
    loss = ArmGripperCloningLoss(
        arm_gripper_actor(TensorDictSequential(network, arm), chunk_size=4, arm_dim=5)
    )
    data = TensorDict({"state": torch.randn(5, 3)}, [5])
    data[keys.CHUNK] = torch.randn(5, 4, 6).sign()
    data[keys.CHUNK_IS_PAD] = torch.arange(4) > torch.tensor([[0], [3], [3], [1], [2]])
    data["collector", "mask"] = torch.tensor([True, True, True, False, True])
    loss(data)["loss_bc"].backward()
    expected = {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}
    loss.zero_grad()
    accumulate_gradients(loss, data, 2)
    assert loss.count(data) == 1 + 4 + 4 + 3
    assert expected
    for name, gradient in expected.items():
        torch.testing.assert_close(dict(loss.named_parameters())[name].grad, gradient)


def test_chosen_terms_alone_are_differentiated():
    loss, data = built(normalize_advantage=False)
    found = accumulate_gradients(loss, data, 4, terms=["loss_critic"])
    assert "loss_objective" in found.keys()  # noqa: SIM118
    for name, parameter in loss.named_parameters():
        touched = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert touched == name.startswith("critic_network"), name


def test_every_forward_pass_runs_in_the_context():
    data = TensorDict({"state": torch.randn(10, 5)}, [10])
    seen = []

    class Probe(nn.Module):
        def forward(self, x):
            seen.append(torch.is_autocast_enabled("cpu"))
            return x

    model = TensorDictModule(nn.Sequential(nn.Linear(5, 1), Probe()), ["state"], ["loss_x"])

    class Mean(nn.Module):
        def forward(self, piece):
            return TensorDict({"loss_x": model(piece.select("state"))["loss_x"].mean()})

    accumulate_gradients(Mean(), data, 4, context=lambda: torch.autocast("cpu", torch.bfloat16))
    assert seen == [True] * 3


def with_sum():
    loss, data = built(reduction="sum")
    return loss, data, 4


def ranking():
    model = TensorDictModule(nn.Linear(2, 1), ["state"], ["temporal_value"])
    return TemporalRankingLoss(model), TensorDict({"state": torch.zeros(4, 3, 2)}, [4, 3]), 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ranking,
            "the loss reduces by 'mean over pairs', expected 'mean': pieces are weighted by their "
            "number of rows.",
        ),
        (lambda: (*built(), 0), "micro_batch is 0, expected at least 1 row."),
        (
            lambda: (built()[0], TensorDict(batch_size=[0]), 4),
            "the batch has shape (0,), expected at least one row.",
        ),
        (
            with_sum,
            "the loss reduces by 'sum', expected 'mean': pieces are weighted by their number of "
            "rows.",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        accumulate_gradients(*arguments())
