import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import ToyVLAEnv, TransformedEnv
from torchrl.envs.transforms import MultiAction
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules.vla import TinyVLA

from rftf_torchrl import BoundedScale, EncoderConfig, gaussian_actor, keys, small_vla, token_actor

CONFIG = EncoderConfig(
    image_size=16, state_dim=5, channels=(4, 4, 4), text_dim=8, image_dim=16, features=16
)


def observations(*batch: int) -> TensorDict:
    return TensorDict(
        {
            "observation": {
                "image": torch.randint(0, 256, (*batch, 3, 16, 16), dtype=torch.uint8),
                "state": torch.randn(*batch, 5),
            },
            "instruction": {
                "tokens": torch.randint(1, 20, (*batch, 4)),
                "mask": torch.ones(*batch, 4, dtype=torch.bool),
            },
        },
        batch,
    )


def policy(head: str):
    return small_vla(CONFIG, chunk_size=4, action_dim=2, head=head)


def state_network(out_key: str = "loc", *shape: int):
    width = int(torch.tensor(shape).prod())
    network = nn.Sequential(nn.Linear(3, width), nn.Unflatten(-1, shape))
    return TensorDictModule(network, ["state"], [out_key])


@pytest.mark.parametrize("head", ["gaussian", "tokens"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_writes_chunk_and_log_prob(head, batch):
    out = policy(head)(observations(*batch))
    assert out[keys.CHUNK].shape == (*batch, 4, 2)
    assert out[keys.LOG_PROB].shape == batch
    params = (
        {keys.LOC: (4, 2), keys.SCALE: (4, 2)} if head == "gaussian" else {keys.LOGITS: (4, 2, 11)}
    )
    for key, shape in params.items():
        assert out[key].shape == (*batch, *shape)


@pytest.mark.parametrize("head", ["gaussian", "tokens"])
def test_the_ratio_is_exactly_one_before_an_update(head):
    actor = policy(head)
    with torch.no_grad():
        data = actor(observations(6))
        log_prob = actor.get_dist(data.copy()).log_prob(data[keys.CHUNK])
    assert torch.equal(log_prob, data[keys.LOG_PROB])


@pytest.mark.parametrize("head", ["gaussian", "tokens"])
def test_executed_actions_only(head):
    actor = policy(head)
    data = actor(observations(3))
    executed = torch.tensor([[True] * 4, [True, False, False, False], [False] * 4])
    data[keys.EXECUTED] = executed
    dist = actor.get_dist(data.copy())
    log_prob = dist.log_prob(data[keys.CHUNK])
    assert torch.equal(dist.executed, executed)
    torch.testing.assert_close(log_prob[0], data[keys.LOG_PROB][0])
    assert log_prob[1] != data[keys.LOG_PROB][1]
    assert log_prob[2] == 0


@pytest.mark.parametrize("head", ["gaussian", "tokens"])
def test_exploration_modes(head):
    actor = policy(head)
    data = observations(3)
    random = [actor(data.copy())[keys.CHUNK] for _ in range(2)]
    assert not torch.equal(*random)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        out = actor(data.copy())
    if head == "gaussian":
        assert torch.equal(out[keys.CHUNK], out[keys.LOC])
    else:
        dist = actor.get_dist(data.copy())
        assert torch.equal(dist.tokens(out[keys.CHUNK]), out[keys.LOGITS].argmax(-1))


def test_keys_can_be_renamed():
    actor = gaussian_actor(
        state_network("loc", 4, 2),
        chunk_size=4,
        action_dim=2,
        chunk_key="a",
        log_prob_key="lp",
        executed_key="done_actions",
    )
    data = TensorDict({"state": torch.zeros(2, 3), "done_actions": torch.zeros(2, 4).bool()}, [2])
    out = actor(data)
    assert out["a"].shape == (2, 4, 2)
    assert torch.equal(out["lp"], torch.zeros(2))


def test_token_actor_uses_its_range():
    actor = token_actor(
        state_network("logits", 4, 2, 3), chunk_size=4, action_dim=2, bins=3, low=0, high=3
    )
    chunk = actor(TensorDict({"state": torch.zeros(50, 3)}, [50]))["vla_action", "chunk"]
    assert set(chunk.unique().tolist()) == {0.5, 1.5, 2.5}


def test_scale_is_bounded_and_learned():
    scale = BoundedScale((4, 2), init=0.3, bounds=(0.05, 1.0))
    loc = torch.zeros(3, 4, 2)
    torch.testing.assert_close(scale(loc), torch.full((3, 4, 2), 0.3))
    with torch.no_grad():
        scale.raw.fill_(5.0)
    scale(loc).sum().backward()
    assert (scale(loc) < 1).all()
    assert (scale.raw.grad > 0).all()
    assert not list(BoundedScale((4, 2), init=0.3, bounds=(0.05, 1.0), learn=False).parameters())


def test_a_torchrl_vla_collects_on_a_torchrl_environment():
    torch.manual_seed(0)
    env = TransformedEnv(
        ToyVLAEnv(action_dim=2, state_dim=5, success_steps=2),
        MultiAction.from_vla(stack_rewards=False),
    )
    vla = TinyVLA(action_dim=2, chunk_size=4)
    actor = gaussian_actor(vla, chunk_size=4, action_dim=2)
    collector = Collector(
        env, actor, frames_per_batch=6, total_frames=12, auto_register_policy_transforms=False
    )
    batches = [batch.copy() for batch in collector]
    collector.shutdown()
    assert len(batches) == 2
    for batch in batches:
        assert batch[keys.CHUNK].shape == (6, 4, 2)
        assert batch[keys.LOG_PROB].shape == (6,)
        stored = batch[keys.CHUNK].clone()
        log_prob = actor.get_dist(batch).log_prob(batch[keys.CHUNK])
        assert torch.equal(batch[keys.CHUNK], stored)
        torch.testing.assert_close(log_prob, batch[keys.LOG_PROB])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: gaussian_actor(state_network("mu", 4, 2), chunk_size=4, action_dim=2),
            "the network must write 'loc', it writes ['mu']: set its out_keys.",
        ),
        (
            lambda: token_actor(state_network("mu", 4, 2), chunk_size=4, action_dim=2),
            "the network must write 'logits', it writes ['mu']: set its out_keys.",
        ),
        (
            lambda: gaussian_actor(
                state_network("loc", 4, 2), chunk_size=4, action_dim=2, init_scale=2.0
            ),
            "init_scale must lie strictly inside positive scale_bounds, got 2.0 and (0.05, 1.0).",
        ),
        (
            lambda: gaussian_actor(
                TinyVLA(action_dim=2, chunk_size=4, action_head="tokens", vocab_size=8),
                chunk_size=4,
                action_dim=2,
            ),
            "gaussian_actor needs a VLA with a continuous head, got 'tokens': TorchRL's token "
            "head is stochastic by itself.",
        ),
        (
            lambda: small_vla(CONFIG, chunk_size=4, action_dim=2, head="diffusion"),
            "head must be 'gaussian', 'arm_gripper', 'tokens' or 'flow', got 'diffusion'.",
        ),
        (
            lambda: BoundedScale((4, 2), init=0.3, bounds=(0.05, 1.0))(torch.zeros(2, 3, 2)),
            "the network wrote a mean of shape (2, 3, 2), expected it to end in (chunk_size, "
            "action_dim) = (4, 2).",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()


def test_wrong_logits_are_named():
    actor = token_actor(state_network("logits", 4, 2, 3), chunk_size=4, action_dim=2)
    message = (
        "the network wrote logits of shape (1, 4, 2, 3), expected them to end in (chunk_size, "
        "action_dim, bins) = (4, 2, 11)."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        actor(TensorDict({"state": torch.zeros(1, 3)}, [1]))
