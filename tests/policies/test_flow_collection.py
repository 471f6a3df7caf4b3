"""A flow policy in TorchRL's rollouts and collectors: every decision has a path of its own."""

import copy
import pickle

import pytest
import torch
from _envs import ChunkWalkEnv
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import ParallelEnv

from rftf_torchrl import ChunkVelocity, RFTFPPOLoss, flow_actor, keys, mark_executed


def policy():
    network = TensorDictModule(nn.Linear(2, 8), [keys.STATE], ["features"])
    velocity = ChunkVelocity(8, (3, 1), width=8)
    return flow_actor(network, velocity, chunk_size=3, action_dim=1)


def check(data, actor):
    data = data.reshape(-1)
    starts = data[keys.FLOW_PATH][:, 0].flatten(1)
    assert len(starts.unique(dim=0)) == len(starts), "no path is used twice"
    mark_executed(data, actor)
    data["advantage"] = torch.randn(len(data), 1)
    loss = RFTFPPOLoss(actor, reference_actor=actor)
    out = loss(loss.add_reference(data))
    torch.testing.assert_close(out["max_ratio"], torch.tensor(1.0))
    assert out["kl_reference"] < 1e-10


def test_rollout():
    actor = policy()
    with torch.no_grad():
        data = ChunkWalkEnv([4]).rollout(8, actor, break_when_any_done=False)
    check(data, actor)


def test_collector():
    actor = policy()
    collector = Collector(
        ChunkWalkEnv([2]),
        actor,
        frames_per_batch=16,
        total_frames=32,
        auto_register_policy_transforms=False,
    )
    for data in collector:
        check(data, actor)
    collector.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers():
    actor = policy()
    env = ParallelEnv(2, ChunkWalkEnv, mp_start_method="fork")
    with torch.no_grad():
        data = env.rollout(4, actor, break_when_any_done=False)
    env.close()
    assert not any(isinstance(value, str) for value in data.values(True, True))
    check(data, actor)


def test_copies_and_pickles_are_independent():
    actor = policy()
    for other in (copy.deepcopy(actor), pickle.loads(pickle.dumps(actor))):
        assert other.head is not actor.head
        data = actor(ChunkWalkEnv([3]).reset())
        found = other.get_dist(data.copy()).log_prob(data[keys.CHUNK])
        assert torch.equal(found, data[keys.LOG_PROB])
