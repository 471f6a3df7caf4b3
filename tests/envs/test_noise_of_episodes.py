"""An episode is the same alone, in any list of workers, and for every kind of policy."""

import pytest
import torch
from fakes import Constant, PlaybackFactory
from policy_kinds import KINDS, SMALL, make_policy
from tensordict.nn import TensorDictModule
from torchrl.envs import GymEnv, NoopResetEnv, TransformedEnv

from rftf_torchrl import DecisionEnv, Episode, EpisodeCollector, Task
from rftf_torchrl.keys import CHUNK

pytestmark = pytest.mark.slow

QUICK = [*SMALL, "gr_mg"]
LIST = [Episode(task, seed) for seed in (4, 7, 5) for task in ("open", "close")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_workers_changes_no_bit(kind, tmp_path):
    policy, recorded = make_policy(kind, tmp_path)
    make_env = PlaybackFactory(recorded, policy(recorded.clone())[CHUNK].shape[1:])
    batches = []
    settings = [{"workers": workers} for workers in ((0, 1, 2, 3) if kind in QUICK else (0, 2))]
    for setting in (*settings, {"workers": 2, "serve": True, "batch": 1}):
        with EpisodeCollector(make_env, policy, **setting) as collector:
            batches.append(collector.collect(LIST, seed=3))
    served = batches.pop()
    for batch in batches[1:]:
        assert batch.batch_size == batches[0].batch_size
        assert bool((batch == batches[0]).all())
    if kind in SMALL:
        assert bool((served == batches[0]).all())
    else:  # its weights lie elsewhere in memory than a copy's, which may change the last bit
        torch.testing.assert_close(served[CHUNK], batches[0][CHUNK], atol=1e-5, rtol=1e-5)
    with EpisodeCollector(make_env, policy, workers=0) as collector:
        other = collector.collect(LIST, seed=4)
        again = collector.collect(LIST[:2], seed=3)
    assert not torch.equal(other[CHUNK], batches[0][CHUNK])
    assert bool((again == batches[0][: len(again)]).all())


class Gusts(DecisionEnv):
    """Its start and its wind come from torch's own generator."""

    def _act(self, action):
        return super()._act(action + torch.rand(1).numpy() - 0.5)


def gusty_hill(episode):
    task = Task(0, "hill", "drive up")
    hill = TransformedEnv(GymEnv("MountainCarContinuous-v0"), NoopResetEnv(20, random=True))
    return Gusts(hill, task, horizon=4)


@pytest.mark.parametrize("setting", [{"workers": 2}, {"workers": 2, "serve": True}])
def test_an_environment_that_draws_does_not_notice_the_others(setting):
    hills = [Episode("hill", seed) for seed in range(4)]
    policy = TensorDictModule(Constant((1,)), [("observation", "state")], ["action"])
    batches = []
    for settings in ({"workers": 0}, setting):
        with EpisodeCollector(gusty_hill, policy, timeout=60.0, **settings) as collector:
            batches.append(collector.collect(hills, seed=3))
        with EpisodeCollector(gusty_hill, policy, timeout=60.0, **settings) as collector:
            alone = collector.collect(hills[:1], seed=3)
        assert bool((batches[-1][: len(alone)] == alone).all())
    first, second = batches
    assert bool((first == second).all())
    assert len(first["next", "observation", "state"].unique(dim=0)) == len(first)
