import math
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch.distributions import Bernoulli, Normal, kl_divergence

from rftf_torchrl import ChunkNormalBernoulli, arm_gripper_actor


def distribution(seed=0, executed=None, batch=(3,)):
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(*batch, 2, 4, generator=generator)
    scale = torch.rand(*batch, 2, 4, generator=generator) + 0.1
    logits = torch.randn(*batch, 2, generator=generator)
    return ChunkNormalBernoulli(loc, scale, logits, executed)


def parts(dist):
    return Normal(dist.arm.loc, dist.arm.scale), Bernoulli(logits=dist.gripper.logits)


EXECUTED = torch.tensor([[True, True], [True, False], [False, False]])


@pytest.mark.parametrize("executed", [None, EXECUTED])
def test_log_prob_entropy_and_divergence_against_their_parts(executed):
    p, q = distribution(0, executed), distribution(1, executed)
    counts = torch.ones(3, 2) if executed is None else executed.float()
    chunk = p.sample()
    assert chunk.shape == (3, 2, 5)
    assert set(chunk[..., -1].unique().tolist()) <= {-1.0, 1.0}
    (arm, gripper), (other_arm, other_gripper) = parts(p), parts(q)
    opened = (chunk[..., -1] > 0).float()
    each = arm.log_prob(chunk[..., :-1]).sum(-1) + gripper.log_prob(opened)
    torch.testing.assert_close(p.log_prob(chunk), (each * counts).sum(-1))
    each = arm.entropy().sum(-1) + gripper.entropy()
    torch.testing.assert_close(p.entropy(), (each * counts).sum(-1))
    each = kl_divergence(arm, other_arm).sum(-1) + kl_divergence(gripper, other_gripper)
    torch.testing.assert_close(kl_divergence(p, q), (each * counts).sum(-1))
    assert torch.equal(kl_divergence(p, p), torch.zeros(3))


def test_a_number_by_hand():
    dist = ChunkNormalBernoulli(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([math.log(3)]))
    opened, closed = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, -1.0]])
    normal = -0.5 * math.log(2 * math.pi)
    assert float(dist.log_prob(opened)) == pytest.approx(normal + math.log(0.75))
    assert float(dist.log_prob(closed)) == pytest.approx(normal + math.log(0.25))
    assert dist.mode.tolist() == [[0.0, 1.0]]
    torch.testing.assert_close(dist.mean, torch.tensor([[0.0, 0.5]]))


def test_half_a_chance_is_closed_as_in_the_originals():
    dist = ChunkNormalBernoulli(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0.0, 1e-3]))
    assert dist.deterministic_sample[:, -1].tolist() == [-1.0, 1.0]


def test_samples_have_the_probabilities():
    torch.manual_seed(0)
    dist = distribution(batch=())
    samples = dist.sample([20_000])
    torch.testing.assert_close(samples.mean(0), dist.mean, atol=0.03, rtol=0)


def test_bf16_parameters_give_float32_probabilities():
    loc, scale = torch.zeros(2, 3), torch.ones(2, 3)
    half = ChunkNormalBernoulli(loc.bfloat16(), scale.bfloat16(), torch.zeros(2).bfloat16())
    chunk = torch.ones(2, 4)
    assert half.log_prob(chunk).dtype == half.entropy().dtype == torch.float32


def test_shapes_that_do_not_fit():
    message = "logits must have the shape of loc without its last dimension, (3, 2), got (3,)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ChunkNormalBernoulli(torch.zeros(3, 2, 4), torch.ones(3, 2, 4), torch.zeros(3))


def test_a_network_that_writes_something_else():
    network = TensorDictModule(lambda x: x, ["x"], ["arm_loc"])
    message = "the network must write 'logits', it writes ['arm_loc']: set its out_keys."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        arm_gripper_actor(network, chunk_size=2, arm_dim=3)
    both = TensorDictModule(lambda x: (x, x), ["x"], ["arm_loc", "logits"])
    with pytest.raises(ValueError, match=r"^arm_dim=0: must be at least 1$"):
        arm_gripper_actor(both, chunk_size=2, arm_dim=0)


def test_a_mean_of_another_size():
    network = TensorDictModule(
        lambda x: (x.new_zeros(2, 3, 4), x.new_zeros(2, 3)), ["x"], ["arm_loc", "logits"]
    )
    actor = arm_gripper_actor(network, chunk_size=3, arm_dim=6)
    message = (
        "the network wrote a mean of shape (2, 3, 4), expected it to end in (chunk_size, "
        "action_dim) = (3, 6)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        actor(TensorDict({"x": torch.zeros(2)}, [2]))


def test_the_divergence_of_grippers_that_are_sure_is_finite():
    """A probability that rounds to 0 or 1 makes torch's divergence of Bernoullis infinite."""
    loc, scale = torch.zeros(3, 2, 4), torch.ones(3, 2, 4)
    logits = torch.tensor([[30.0, -120.0], [5.0, 0.0], [-40.0, 2.0]], requires_grad=True)
    other = torch.tensor([[31.0, -110.0], [-120.0, 0.0], [-40.0, 120.0]])
    p = ChunkNormalBernoulli(loc, scale, logits)
    q = ChunkNormalBernoulli(loc, scale, other)
    found = kl_divergence(p, q)
    p_5, p_2 = 1 / (1 + math.exp(-5)), 1 / (1 + math.exp(-2))
    by_hand = [
        0.0,
        p_5 * (math.log(p_5) + 120) + (1 - p_5) * math.log(1 - p_5),
        p_2 * math.log(p_2) + (1 - p_2) * (math.log(1 - p_2) + 120),
    ]
    torch.testing.assert_close(found, torch.tensor(by_hand), rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert torch.isfinite(logits.grad).all()
