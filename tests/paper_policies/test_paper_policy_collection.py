"""GR-MG and Seer in parallel environments, in worker processes and in chains of subtasks."""

from functools import partial

import pytest
import torch
from torch import nn
from torchrl.envs import ParallelEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

pytest.importorskip("transformers")
from _arm_env import ArmEnv
from _paper_policies import build, make_env, rollout

from rftf_torchrl import Episode, EpisodeCollector, PolicyInputFactory, keys
from rftf_torchrl.calvin.chains.stages import PolicyStage
from rftf_torchrl.envs.episodes import LocalActor


@pytest.mark.slow
def test_parallel_environments(spec):
    policy = build(spec)
    mode = ExplorationType.DETERMINISTIC
    alone = rollout(spec, policy, mode=mode)
    env = ParallelEnv(2, partial(make_env, spec), mp_start_method="fork")
    with torch.no_grad(), set_exploration_type(mode):
        together = env.rollout(5, policy)
    env.close()
    for row in range(2):
        torch.testing.assert_close(together[row][keys.CHUNK], alone[keys.CHUNK])


@pytest.mark.slow
def test_worker_processes(spec):
    """GR-MG has more weights than a process can be given file descriptors."""
    policy = build(spec)
    mode = ExplorationType.DETERMINISTIC
    alone = rollout(spec, policy, mode=mode)
    make = PolicyInputFactory(make_arm, spec.observation_transform())
    with EpisodeCollector(make, policy, workers=1) as collector:
        data = collector.collect([Episode("lift", 0), Episode("lift", 2)], deterministic=True)
    torch.testing.assert_close(data[keys.CHUNK][:5], alone[keys.CHUNK], atol=1e-5, rtol=1e-5)
    assert data["vla_inputs", "valid"].sum(-1).tolist() == [1, 2, 3, 3, 3] * 2
    assert all(isinstance(value, torch.Tensor) for value in data.values(True, True))
    assert "language_instruction" not in data.keys()  # noqa: SIM118


def make_arm(episode):
    return ArmEnv(chunk=2)


def test_a_subtask_of_a_chain_starts_anew(spec):
    env = make_env(spec, horizon=100)
    seen = []

    class Spy(nn.Module):
        in_keys, out_keys = spec.in_keys, [keys.CHUNK]

        def __call__(self, tensordict):
            seen.append(tensordict.clone())
            return tensordict.set(keys.CHUNK, torch.zeros(1, 2, 7))

    stage = PolicyStage(
        env, LocalActor(Spy()), 8, True, {"open": ["open it"], "push": ["push it well"]}
    )
    env.base_env.simulator = None
    for task in ("open", "push"):
        assert stage.do(task, lambda: None) == (False, 8)
    valid = torch.cat([data["vla_inputs", "valid"] for data in seen]).sum(-1)
    assert valid.tolist() == [1, 2, 3, 3] * 2
    assert not torch.equal(
        seen[0]["vla_inputs", "clip_tokens"], seen[4]["vla_inputs", "clip_tokens"]
    )
