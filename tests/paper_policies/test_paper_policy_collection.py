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

from rftf_torchrl import (
    Episode,
    EpisodeCollector,
    PolicyInputEnv,
    PolicyInputFactory,
    evaluate_chains,
    keys,
)
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


class ChainArm(ArmEnv):
    """Whether a task is done hangs on every digit of what the arm did since its start."""

    def __init__(self, **arguments):
        super().__init__(horizon=100, **arguments)
        self.simulator = self

    def reset(self, robot_obs, scene_obs=None, **kwargs):
        if scene_obs is None:
            return super().reset(robot_obs, **kwargs)
        self.start = int(abs(scene_obs.sum()) * 1000) % 50
        self.moved = torch.zeros(())
        return None

    def continue_chain(self, task, instruction=None):
        self.seed, self.moved = self.start, torch.zeros(())
        return super().continue_chain(task, instruction)

    def _step(self, tensordict):
        self.moved = self.moved + tensordict[keys.CHUNK][..., :6].abs().sum()
        done = (100 * self.moved % 1 < 0.2).reshape(1)
        return super()._step(tensordict).update({"success": done, "done": done})


def make_chain_arm(spec):
    return PolicyInputEnv(ChainArm(chunk=2), spec.observation_transform())


@pytest.mark.slow
def test_chains_by_a_served_policy_that_looks_back(spec):
    play = partial(
        evaluate_chains,
        build(spec),
        make_env=partial(make_chain_arm, spec),
        chains=3,
        steps_per_subtask=20,
        deterministic=False,
    )
    here = play(workers=0)
    steps = [step for result in here.results for step in result.steps]
    assert len(set(steps)) > 1
    assert play(workers=2, serve=True, batch=1).results == here.results
    assert play(workers=2, serve=True).results == here.results


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
