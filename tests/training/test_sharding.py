"""A policy that is divided over processes learns what one process would, or is refused."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from _blocks_policy import critic
from _sharded_copy import begin, copy_of, ended, objective, steps
from policy_kinds import KINDS, ROWS, make_policy
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.nn.functional import linear

from rftf_torchrl import RFTFPPOLoss, accumulate_gradients, gaussian_actor, keys
from rftf_torchrl.errors import UserError
from rftf_torchrl.training.guards import clip_and_check_gradients
from rftf_torchrl.training.sharding import ShardedCopy, _layers, naming_what_cannot_be_divided

HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.mark.slow
@pytest.mark.recipe
def test_two_processes_with_parts_end_where_one_does(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(HELPERS / "_sharded_copy.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert len(first["held"]) == 6  # weight and bias of three blocks
    for (one, whole), (other, _) in zip(first["held"], second["held"], strict=True):
        assert one == other == [whole // 2] * 4
    assert first["kept"]
    assert not second["kept"]
    actor, value, loss, optimizer, data = begin()
    expected = ended(actor, value, optimizer, steps(loss, optimizer, data))
    for part in ("weights", "optimizer", "norms"):
        torch.testing.assert_close(first[part], expected[part], rtol=1e-5, atol=1e-6)


def test_what_shares_its_weights_or_is_not_called_stays_whole():
    tied, own = nn.Linear(2, 2), nn.Linear(2, 2)
    policy = nn.Module()
    policy.blocks = nn.ModuleList([tied, nn.ModuleList([own]), nn.Tanh()])
    policy.head = nn.Linear(2, 2)
    policy.head.weight = tied.weight
    network = TensorDictModule(policy, ["state"], [keys.LOC])
    assert list(_layers((nn.ModuleList([network]), None))) == [own]
    assert list(_layers((nn.ModuleList([network]), own))) == []


def test_a_policy_without_layers_is_refused():
    actor = TensorDictModule(nn.Linear(5, 6), ["state"], [keys.LOC])
    with pytest.raises(UserError) as raised:
        copy_of(actor, None, None, None)
    assert str(raised.value) == (
        "ppo.shard=true: this policy has no layer to divide, that is, none in an nn.ModuleList or "
        "nn.Sequential with weights of its own. Leave out ppo.shard"
    )


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(5, 6))

    def forward(self, state):
        return linear(state, self.blocks[0].weight).unflatten(-1, (3, 2))


def test_a_policy_that_does_not_call_its_layers_is_refused(one_process):
    network = TensorDictModule(Reads(), ["state"], [keys.LOC])
    actor = gaussian_actor(network, chunk_size=3, action_dim=2)
    value = critic()
    copied = copy_of(actor, value, *objective(actor, value, reference=actor))
    with pytest.raises(UserError) as raised, naming_what_cannot_be_divided():
        copied.loss.actor_network(TensorDict({"state": torch.zeros(2, 5)}, [2]))
    assert str(raised.value).startswith(
        "ppo.shard=true: this policy uses weights of a layer without calling the layer, so that "
        "they were not gathered. Leave out ppo.shard ("
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_policy_can_be_divided(kind, one_process, tmp_path):
    actor, data = make_policy(kind, tmp_path)
    with torch.no_grad():
        data = actor(data)
    data["advantage"] = torch.randn(ROWS, 1)
    options = {"normalize_advantage": False, "kl_coeff": 0.1}

    def build(policy, _, **how):
        loss = RFTFPPOLoss(policy, reference_actor=actor, **options, **how)
        trained = [each for each in policy.parameters() if each.requires_grad]
        return loss, torch.optim.Adam(trained)

    loss, optimizer = build(actor, None)
    data = loss.add_reference(data)
    copied = ShardedCopy(
        (actor, None), loss, optimizer, partial(build, functional=False), torch.device("cpu")
    )
    norms = []
    for each in (loss, copied.loss):
        accumulate_gradients(each, data, ROWS)
        norms.append(float(clip_and_check_gradients(each.named_parameters(), 1.0)))
    assert norms[0] > 0
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


def test_other_errors_of_a_forward_pass_stay():
    with pytest.raises(RuntimeError, match=r"^out of memory$"), naming_what_cannot_be_divided():
        raise RuntimeError("out of memory")


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
