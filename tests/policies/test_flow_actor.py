import copy
import math
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Normal, kl_divergence
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import (
    ChunkFlow,
    ChunkVelocity,
    FlowNoise,
    flow_actor,
    flow_sde_transition,
    keys,
    mark_executed,
)

H, A, F = 3, 2, 8
NOISES = ["sde", "learned"]


def policy(noise="sde", steps=4, **options):
    network = TensorDictModule(nn.Sequential(nn.Linear(5, F), nn.Tanh()), ["state"], ["features"])
    learned = FlowNoise(F, (H, A), steps) if noise == "learned" else None
    velocity = ChunkVelocity(F, (H, A), width=16)
    return flow_actor(
        network, velocity, chunk_size=H, action_dim=A, steps=steps, noise=learned, **options
    )


def states(*batch):
    return TensorDict({"state": torch.randn(*batch, 5)}, batch)


class Linear(nn.Module):
    """v(x, tau) = rate * x + shift: every state of the path is Gaussian."""

    def __init__(self, rate, shift):
        super().__init__()
        self.rate, self.shift = rate, shift

    def forward(self, x, tau, features):
        return self.rate * x + self.shift + 0 * features.sum(-1)[..., None, None]


def one_number(steps, level, rate=-0.8, shift=0.5):
    network = TensorDictModule(nn.Identity(), ["state"], ["features"])
    return flow_actor(
        network, Linear(rate, shift), chunk_size=1, action_dim=1, steps=steps, level=level
    )


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_shapes_and_types(noise, batch):
    out = policy(noise)(states(*batch))
    assert out[keys.CHUNK].shape == (*batch, H, A)
    assert out[keys.FLOW_PATH].shape == (*batch, 4, H, A)
    assert out[keys.LOG_PROB].shape == batch
    for key in (keys.CHUNK, keys.FLOW_PATH, keys.LOG_PROB):
        assert out[key].dtype == torch.float32
    assert not out[keys.FLOW_PATH].requires_grad


@pytest.mark.parametrize("noise", NOISES)
def test_log_prob_against_a_loop(noise):
    actor = policy(noise)
    data = states(4)
    with torch.no_grad():
        data = actor(data)
        dist = actor.get_dist(data.copy())
    total = torch.zeros(4)
    for row in range(4):
        features = data["features"][row]
        visited = [*data[keys.FLOW_PATH][row], data[keys.CHUNK][row]]
        for step in range(4):
            x = visited[step]
            with torch.no_grad():
                v = actor.head.velocity(x, torch.tensor(step / 4), features)
                if noise == "learned":
                    loc, scale = x + v / 4, actor.head.noise(step, features)
                else:
                    loc, scale = flow_sde_transition(x, v, step / 4, 1 / 4, 0.5)
            for h in range(H):
                for d in range(A):
                    std = scale[h, d] if noise == "learned" else scale
                    total[row] += Normal(loc[h, d], std).log_prob(visited[step + 1][h, d])
    torch.testing.assert_close(data[keys.LOG_PROB], total, rtol=1e-4, atol=1e-4)
    assert torch.equal(dist.log_prob(data[keys.CHUNK]), data[keys.LOG_PROB])


def test_one_step_is_a_normal_around_the_step():
    actor = one_number(steps=1, level=0.5)
    data = actor(states(6))
    x = data[keys.FLOW_PATH][:, 0]
    expected = Normal(x * (1 - 0.125) + (-0.8 * x + 0.5), 0.5)
    torch.testing.assert_close(
        data[keys.LOG_PROB], expected.log_prob(data[keys.CHUNK]).sum((-2, -1))
    )


def test_the_density_of_the_path_integrates_to_the_known_density_of_the_chunk():
    """Two steps of a linear velocity: p(x_2) = int p(x_0) p(x_1 | x_0) p(x_2 | x_1) is normal."""
    actor = one_number(steps=2, level=0.7)
    grid = torch.linspace(-6, 6, 241)
    x0, x1 = torch.meshgrid(grid, grid, indexing="ij")
    mean, variance = 0.0, 1.0
    for step in range(2):
        ends = [
            flow_sde_transition(x, -0.8 * x + 0.5, step / 2, 0.5, 0.7)
            for x in (torch.tensor(0.0), torch.tensor(1.0))
        ]
        slope = float(ends[1][0] - ends[0][0])
        mean, variance = float(ends[0][0]) + slope * mean, slope**2 * variance + ends[0][1] ** 2
    for end in (-1.0, 0.2, 1.5):
        path = torch.stack([x0, x1], -1)[..., None, None]
        data = TensorDict({"state": torch.zeros(*x0.shape, 5)}, x0.shape)
        data[keys.FLOW_PATH] = path
        data[keys.CHUNK] = torch.full((*x0.shape, 1, 1), end)
        joint = actor.get_dist(data).log_prob(data[keys.CHUNK]) + Normal(0.0, 1.0).log_prob(x0)
        density = float(joint.exp().sum() * (grid[1] - grid[0]) ** 2)
        expected = float(Normal(mean, math.sqrt(variance)).log_prob(torch.tensor(end)).exp())
        assert density == pytest.approx(expected, rel=1e-4)


class GaussianTarget(nn.Module):
    """The exact velocity of a ~ N(0.7, 0.5^2), elementwise."""

    def forward(self, x, tau, features):
        tau = tau[..., None, None]
        variance = tau**2 * 0.25 + (1 - tau) ** 2
        return 0.7 + (tau * 0.25 - (1 - tau)) / variance * (x - tau * 0.7)


def test_stochastic_and_ordinary_flow_end_in_the_same_gaussian():
    torch.manual_seed(0)
    network = TensorDictModule(nn.Identity(), ["state"], ["features"])
    actor = flow_actor(network, GaussianTarget(), chunk_size=2, action_dim=1, steps=100, level=0.6)
    count = 8000
    with torch.no_grad():
        noisy = actor(states(count))[keys.CHUNK].flatten(1)
        quiet = torch.randn(count, 2, 1)
        for step in range(400):
            tau = torch.full((count,), step / 400)
            quiet = quiet + actor.head.velocity(quiet, tau, torch.zeros(count, 5)) / 400
        quiet = quiet.flatten(1)
    bound = 4 * 0.5 / math.sqrt(count)
    for ends in (noisy, quiet):
        assert (ends.mean(0) - 0.7).abs().max() < bound
        covariance = torch.cov(ends.T)
        assert (covariance - 0.25 * torch.eye(2)).abs().max() < 4 * 0.25 * math.sqrt(2 / count)


def test_deterministic_mode_is_the_ordinary_flow_and_is_scored_by_the_noisy_one():
    actor = policy()
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        data = actor(states(5))
    x = data[keys.FLOW_PATH][:, 0]
    assert torch.equal(x, torch.zeros_like(x))
    with torch.no_grad():
        for step in range(4):
            assert torch.equal(data[keys.FLOW_PATH][:, step], x)
            x = x + actor.head.velocity(x, torch.full((5,), step / 4), data["features"]) * 0.25
        assert torch.equal(data[keys.CHUNK], x)
        again = actor.get_dist(data.copy()).log_prob(data[keys.CHUNK])
    assert torch.equal(again, data[keys.LOG_PROB])


def test_calling_draws_a_new_path_and_scoring_keeps_the_stored_one():
    actor = policy()
    first = actor(states(3))
    stale = first.copy()
    second = actor(stale)
    assert not torch.equal(first[keys.FLOW_PATH][:, 1], second[keys.FLOW_PATH][:, 1])
    dist = actor.get_dist(second.copy())
    assert torch.equal(dist.path, second[keys.FLOW_PATH])
    torch.testing.assert_close(dist.log_prob(second[keys.CHUNK]), second[keys.LOG_PROB])


@pytest.mark.parametrize("noise", NOISES)
def test_the_last_state_of_an_unexecuted_action_does_not_count(noise):
    actor = policy(noise)
    executed = torch.tensor([[True, True, True], [True, False, False]])
    data = actor(states(2))
    whole = data[keys.LOG_PROB].detach()
    data["next"] = TensorDict({"executed": executed}, [2])
    cut = mark_executed(data, actor)[keys.LOG_PROB]
    assert cut[0] == whole[0]
    dist = actor.get_dist(data.copy())
    missing = Normal(dist.loc[1, -1, 1:], dist.scale[1, -1, 1:]).log_prob(data[keys.CHUNK][1, 1:])
    torch.testing.assert_close(cut[1], (whole[1] - missing.sum()).detach())
    other = data[keys.CHUNK].clone()
    other[1, 1:] += 5.0
    assert torch.equal(dist.log_prob(other)[1], dist.log_prob(data[keys.CHUNK])[1])


def test_the_divergence_is_the_sum_over_the_transitions_of_the_path():
    actor = policy("learned")
    data = actor(states(2))
    data[keys.EXECUTED] = torch.tensor([[True, True, True], [True, False, False]])
    other = copy.deepcopy(actor)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    p, q = actor.get_dist(data.copy()), other.get_dist(data.copy())
    each = kl_divergence(Normal(p.loc, p.scale), Normal(q.loc, q.scale)).sum(-1)
    each[1, -1, 1:] = 0
    torch.testing.assert_close(kl_divergence(p, q), each.sum((-2, -1)))
    assert torch.equal(kl_divergence(p, p), torch.zeros(2))


def test_the_divergence_of_paths_is_an_expectation_of_log_ratios():
    torch.manual_seed(0)
    one, two = one_number(3, 0.7), one_number(3, 0.7, rate=-0.5)
    with torch.no_grad():
        data = one(TensorDict({"state": torch.zeros(20_000, 5)}, [20_000]))
        p, q = one.get_dist(data.copy()), two.get_dist(data.copy())
        ratio = data[keys.LOG_PROB] - q.log_prob(data[keys.CHUNK])
        closed = kl_divergence(p, q)
    error = 4 * float((ratio - closed).std()) / math.sqrt(20_000)
    assert abs(float(ratio.mean() - closed.mean())) < error
    assert closed.mean() > 5 * error, "the two policies differ visibly"


def test_entropy_of_the_transitions():
    dist = ChunkFlow(
        torch.zeros(2, H, A),
        torch.tensor(0.5).expand(2, 1, 1),
        torch.zeros(2, H, A),
        torch.zeros(H, A),
    )
    expected = 2 * H * A * float(Normal(0.0, 0.5).entropy())
    assert float(dist.entropy()) == pytest.approx(expected)


def test_batched_equals_one_by_one():
    actor = policy()
    with torch.no_grad():
        data = actor(states(4))
        rows = [actor.get_dist(row.copy()).log_prob(row[keys.CHUNK]) for row in data]
    torch.testing.assert_close(torch.stack(rows), data[keys.LOG_PROB], rtol=1e-5, atol=1e-4)


def test_a_bfloat16_network_writes_float32():
    torch.manual_seed(0)
    actor = policy("learned").to(torch.bfloat16)
    with torch.no_grad():
        data = actor(states(4).bfloat16())
        for key in (keys.CHUNK, keys.FLOW_PATH, keys.LOG_PROB, keys.FLOW_LOC):
            assert data[key].dtype == torch.float32
        again = actor.get_dist(data.copy()).log_prob(data[keys.CHUNK])
    assert torch.equal(again, data[keys.LOG_PROB])


def test_the_noise_network_stays_inside_its_bounds():
    noise = FlowNoise(F, (H, A), 2, init=0.1, bounds=(0.05, 0.2))
    nn.init.normal_(noise.weight, std=50.0)
    scale = noise(1, torch.randn(100, F))
    assert scale.min() >= 0.05
    assert scale.max() <= 0.2
    assert scale.std() > 0.01


def identity(key):
    return TensorDictModule(nn.Identity(), ["state"], [key])


def stored(shape):
    data = states(2)
    data[keys.FLOW_PATH] = torch.zeros(2, *shape)
    return data


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (
            lambda: flow_actor(identity("loc"), Linear(0, 0), chunk_size=1, action_dim=1),
            ValueError,
            "the network must write 'features', it writes ['loc']: set its out_keys.",
        ),
        (lambda: policy(steps=0), ValueError, "steps must be at least 1, got 0."),
        (
            lambda: policy(level=0.0),
            ValueError,
            "level must be above 0, got 0.0: without noise there is no log-probability.",
        ),
        (
            lambda: FlowNoise(F, (H, A), 4, init=0.5),
            ValueError,
            "init must lie strictly inside positive bounds, got 0.5 and (0.02, 0.3).",
        ),
    ],
)
def test_errors(broken, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        broken()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            lambda: stored((5, H, A)),
            "the stored path at ('vla_action', 'flow_path') has shape (2, 5, 3, 2), expected "
            "batch, steps, chunk_size, action_dim = (2, 4, 3, 2).",
        ),
        (
            lambda: states(2).set(keys.CHUNK, torch.zeros(2, H, A)),
            "the data hold a chunk at ('vla_action', 'chunk') and no denoising path at "
            "('vla_action', 'flow_path'): store what the actor wrote. A chunk of a demonstration "
            "has no path; clone it with FlowMatchingLoss.",
        ),
    ],
)
def test_errors_of_stored_data(data, message):
    with pytest.raises(Exception, match=re.escape(message)):
        policy().get_dist(data())


def test_a_velocity_of_another_shape():
    actor = flow_actor(
        identity("features"), ChunkVelocity(5, (2, 2), width=4), chunk_size=2, action_dim=2
    )
    actor.head.velocity.shape = (4, 1)
    message = "the velocity has shape (3, 4, 1), expected that of the chunk, (3, 2, 2)."
    with pytest.raises(Exception, match=re.escape(message)):
        actor(states(3))


@pytest.mark.parametrize("shape", [(H, A), (A,), (1, 1)])
def test_a_noise_that_broadcasts(shape):
    class Noise(nn.Module):
        def forward(self, step, *features):
            return torch.full(shape, 0.3)

    network = TensorDictModule(nn.Linear(3, F), ["state"], ["features"])
    actor = flow_actor(network, ChunkVelocity(F, (H, A)), chunk_size=H, action_dim=A, noise=Noise())
    out = actor(TensorDict({"state": torch.zeros(5, 3)}, [5]))
    assert out[keys.LOG_PROB].shape == (5,)
