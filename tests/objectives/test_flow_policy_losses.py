import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.objectives import ClipPPOLoss

from rftf_torchrl import (
    ChunkVelocity,
    FlowMatchingLoss,
    FlowNoise,
    RFTFPPOLoss,
    flow_actor,
    gaussian_actor,
    keys,
)

H, A = 3, 2


def policy(noise="sde", width=16):
    network = TensorDictModule(nn.Sequential(nn.Linear(5, 8), nn.Tanh()), ["state"], ["features"])
    learned = FlowNoise(8, (H, A), 4) if noise == "learned" else None
    velocity = ChunkVelocity(8, (H, A), width=width)
    return flow_actor(network, velocity, chunk_size=H, action_dim=A, noise=learned)


def decisions(actor, count=6):
    data = TensorDict({"state": torch.randn(count, 5)}, [count])
    data[keys.EXECUTED] = torch.ones(count, H, dtype=torch.bool)
    data[keys.EXECUTED][-1, 1:] = False
    with torch.no_grad():
        data = actor(data)
    data["advantage"] = torch.randn(count, 1)
    return data


@pytest.mark.parametrize("noise", ["sde", "learned"])
@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("loss_class", [ClipPPOLoss, RFTFPPOLoss])
def test_the_ratio_is_one_and_gradients_reach_everything(noise, functional, loss_class):
    actor = policy(noise)
    data = decisions(actor)
    if loss_class is ClipPPOLoss:
        loss = ClipPPOLoss(actor, None, critic_coeff=None, functional=functional)
    else:
        loss = RFTFPPOLoss(actor, reference_actor=actor, functional=functional)
        loss.add_reference(data)
        assert set(data["reference"].keys(True, True)) == {
            keys.FLOW_LOC,
            keys.FLOW_SCALE,
            keys.FLOW_MODE,
        }
    out = loss(data)
    assert out["max_ratio"] == 1
    assert out["mean_ratio"] == 1
    sum(value for key, value in out.items() if key.startswith("loss_")).backward()
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, name
    if loss_class is RFTFPPOLoss:
        assert out["kl_reference"] == 0


def test_the_penalty_measures_how_far_the_policy_moved_along_the_stored_paths():
    actor = policy()
    data = decisions(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, kl_coeff=1.0)
    loss.add_reference(data)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    now = loss(data)
    expected = torch.distributions.kl_divergence(
        actor.get_dist(data.copy()), loss.reference_actor.get_dist(data.copy())
    )
    torch.testing.assert_close(now["kl_reference"], expected.mean().detach())
    assert now["kl_reference"] > 0


def test_ppo_moves_chunks_towards_the_better_ones():
    torch.manual_seed(0)
    actor = policy()
    loss = RFTFPPOLoss(actor, kl_coeff=0, entropy_bonus=False)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    state = TensorDict({"state": torch.zeros(128, 5)}, [128])
    distances = []
    for _ in range(25):
        with torch.no_grad():
            data = actor(state.copy())
        cost = (data[keys.CHUNK] - 0.5).square().mean((-2, -1))
        distances.append(float(cost.mean()))
        data["advantage"] = ((cost.mean() - cost) / cost.std()).unsqueeze(-1)
        for _ in range(4):
            optimizer.zero_grad()
            loss(data)["loss_objective"].backward()
            optimizer.step()
    assert distances[-1] < 0.6 * distances[0]


@pytest.mark.slow
def test_cloning_recovers_two_modes_that_a_mean_would_miss():
    torch.manual_seed(0)
    actor = policy(width=64)
    loss = FlowMatchingLoss(actor)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    for _ in range(400):
        sign = torch.randint(0, 2, (128, 1, 1)) * 2.0 - 1.0
        data = TensorDict({"state": torch.zeros(128, 5)}, [128])
        data[keys.CHUNK] = sign * torch.tensor([0.5, -0.5]).expand(128, H, A)
        optimizer.zero_grad()
        loss(data)["loss_bc"].backward()
        optimizer.step()
    with torch.no_grad():
        actor.head.steps = 32
        chunk = actor(TensorDict({"state": torch.zeros(256, 5)}, [256]))[keys.CHUNK]
    first, second = chunk[..., 0].mean(-1), chunk[..., 1].mean(-1)
    assert torch.quantile((first.abs() - 0.5).abs(), 0.9) < 0.15
    assert 0.3 < (first > 0).float().mean() < 0.7
    assert torch.corrcoef(torch.stack([first, second]))[0, 1] < -0.95


@pytest.mark.parametrize("times", ["uniform", "beta"])
def test_padding_does_not_teach(times):
    actor = policy()
    data = TensorDict({"state": torch.randn(4, 5)}, [4])
    data[keys.CHUNK] = torch.randn(4, H, A)
    data[keys.CHUNK_IS_PAD] = torch.zeros(4, H, dtype=torch.bool)
    data[keys.CHUNK_IS_PAD][:, -1] = True
    loss = FlowMatchingLoss(actor, times=times)
    seen = []
    actor.head.velocity.register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    torch.manual_seed(1)
    loss(data)["loss_bc"].backward()
    last = actor.head.velocity.outer[-1].bias.grad.reshape(H, A)
    assert torch.equal(last[-1], torch.zeros(A))
    assert last[:-1].abs().min() > 0
    assert 0 <= float(seen[0][1].min()) <= float(seen[0][1].max()) < 1


def test_the_beta_times_have_the_mean_of_the_distribution():
    torch.manual_seed(0)
    loss = FlowMatchingLoss(policy(), times="beta")
    times = loss._draw_times(torch.zeros(100_000, H, A))
    assert float(times.mean()) == pytest.approx(0.999 * (1 - 1.5 / 2.5), abs=0.005)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: FlowMatchingLoss(policy(), times="normal"),
            "times must be 'uniform' or 'beta', got 'normal'.",
        ),
        (
            lambda: FlowMatchingLoss(
                gaussian_actor(
                    TensorDictModule(nn.Linear(3, 8), ["state"], ["loc"]),
                    chunk_size=4,
                    action_dim=2,
                )
            ),
            "FlowMatchingLoss needs a policy from flow_actor, got "
            "ProbabilisticTensorDictSequential: clone other policies with BCLoss.",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()
