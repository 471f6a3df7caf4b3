"""A served policy: its batches, and what happens when it fails, hangs or its thread ends."""

import re
import threading

import pytest
import torch
from fakes import make_walk
from sleeping import SleepingFactory, sleeping_policy
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import Episode, EpisodeCollector
from rftf_torchrl.envs import shared_policy as module

pytestmark = pytest.mark.slow

WALKS = [Episode("none", seed) for seed in (4, 7, 5, 9)]


class Act(nn.Module):
    """Writes how large its batch is."""

    def __init__(self, act=None):
        super().__init__()
        self.act, self.device = act, nn.Parameter(torch.zeros(1))

    def forward(self, state):
        if self.act is not None:
            self.act()
        return torch.full((len(state), 1), float(len(state))) + 0 * self.device


def serve(act=None, **arguments):
    policy = TensorDictModule(Act(act), in_keys=["state"], out_keys=["action"])
    arguments = {"workers": 3, "serve": True, "timeout": 60.0, **arguments}
    return EpisodeCollector(make_walk, policy, **arguments)


def test_a_batch_is_never_larger_than_asked():
    with serve(batch=2, wait=0.2) as collector:
        sizes = collector.collect(WALKS)["action"]
        stats = collector.server_stats
    assert set(sizes.flatten().tolist()) <= {1.0, 2.0}
    assert stats["requests"] == len(sizes)


def test_a_batch_waits_for_those_that_play():
    policy = sleeping_policy(0.05)
    with EpisodeCollector(SleepingFactory(0.0, 30), policy, workers=3, serve=True) as collector:
        for _ in range(2):  # environments are made in the first
            collector.collect([Episode("sleep", seed) for seed in range(3)])
        assert collector.server_stats["avg_batch_size"] > 2


def test_an_error_of_the_policy_is_raised_here_with_its_own_place():
    def act():
        raise KeyError("a broken policy")

    with serve(act) as collector, pytest.raises(KeyError, match="a broken policy") as raised:
        collector.collect(WALKS)
    assert "act" in [entry.name for entry in raised.traceback]


def test_a_policy_that_hangs_is_reported_with_where_it_is(monkeypatch):
    monkeypatch.setattr(module, "START_UP_SECONDS", 2.0)
    end = threading.Event()

    def sleep_on():
        end.wait()

    message = r"^the policy has not answered for 2 s\. It is here:\n\n(.|\n)*in sleep_on\n"
    with serve(sleep_on, timeout=1.0) as collector, pytest.raises(RuntimeError, match=message):
        collector.collect(WALKS)
    end.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_reported():
    message = "the thread in which the policy decides was ended by SystemExit"

    def act():
        raise SystemExit

    with serve(act) as collector, pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        collector.collect(WALKS)


def test_the_policy_gets_its_flags_and_the_generator_its_state_back():
    flags = []
    with serve(lambda: flags.append(policy.training), batch=1) as collector:
        policy = collector._shared.acting.train()
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        collector.collect(WALKS)
    assert torch.rand(1) == expected
    assert set(flags) == {False}
    assert policy.training


def test_autocast_reaches_the_policy():
    seen = []

    def look():
        seen.append(torch.is_autocast_enabled("cpu"))

    with serve(look) as collector:
        with torch.autocast("cpu"):
            collector.collect(WALKS[:1])
        collector.collect(WALKS[:1])
    assert seen[0]
    assert not seen[-1]
