"""Episodes that Ray actors play: the batch is that of processes, and what happens to lost ones."""

import re

import pytest
import torch
from _ray import connected
from fakes import BAD_SEED, make_walk, walk_policy

from rftf_torchrl import Episode, EpisodeCollector
from rftf_torchrl.envs import workers
from rftf_torchrl.errors import UserError

pytestmark = pytest.mark.ray
MIXED = [Episode(f"scene {index % 3}", seed) for index, seed in enumerate([4, 7, 5, 9, 6])]
PLACE = r"on [\d.]+, process \d+"


@pytest.fixture(scope="module")
def node():
    """All actors of these tests, one after another, are on one node."""
    with connected(address="local", num_cpus=2, include_dashboard=False):
        yield


@pytest.fixture
def make_collector(node):
    collectors = []

    def make(policy=None, **arguments):
        arguments = {"engine": "ray", "workers": 1, "timeout": 60.0, **arguments}
        collectors.append(EpisodeCollector(make_walk, policy or walk_policy(), **arguments))
        return collectors[-1]

    yield make
    for collector in collectors:
        collector.close()


def same(first, second):
    return first.batch_size == second.batch_size and bool((first == second).all())


def test_copies_give_the_batch_of_processes_also_with_new_weights(make_collector):
    """And in the actor that replaces one which died with them."""
    policy = walk_policy()
    of_ray, of_processes = make_collector(policy), make_collector(policy, engine="process")
    assert same(of_ray.collect(MIXED, seed=3), of_processes.collect(MIXED, seed=3))
    with torch.no_grad():
        policy[0].module.weight.fill_(2.0)
    of_ray.update_policy_weights_()
    of_processes.update_policy_weights_()
    first = of_processes.collect(MIXED, seed=4)
    assert (first["loc"] == 2 * first["state"][:, :1]).all()
    assert same(of_ray.collect(MIXED, seed=4), first)
    of_ray.collect([Episode("exit", BAD_SEED), Episode("none", 4)])
    assert of_ray.crashed == 1
    assert same(of_ray.collect(MIXED, seed=4), first)


@pytest.mark.slow
def test_a_served_policy_gives_the_batch_of_processes(make_collector):
    of_ray = make_collector(serve=True, batch=1, workers=2)
    of_processes = make_collector(serve=True, batch=1, engine="process")
    assert same(of_ray.collect(MIXED, seed=3), of_processes.collect(MIXED, seed=3))


@pytest.mark.slow
@pytest.mark.parametrize("serve", [False, True], ids=["copy", "server"])
@pytest.mark.parametrize(
    ("trouble", "reasons"),
    [("exit", [f"died {PLACE}"]), ("sleep", ["hung for 3 s"]), ("crash", [])],
)
def test_a_lost_episode_is_dropped_and_counted(make_collector, serve, trouble, reasons, caplog):
    collector = make_collector(timeout=3.0, serve=serve)
    seeds = [4, BAD_SEED, 7]
    batch = collector.collect([Episode(trouble, seed) for seed in seeds], deterministic=True)
    assert batch["collector", "traj_ids"].unique().tolist() == [0, 2]
    assert (collector.crashed, collector.env_steps) == (1, len(batch))
    dropped = rf"Episode\(task='{trouble}', seed=13, instruction=None\), 1 in the list, is dropped"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(reasons)
    for line, reason in zip(said, reasons, strict=True):
        assert re.fullmatch(f"a simulator process {reason}; {dropped}", line)


@pytest.mark.slow
def test_a_programming_error_is_raised_here_with_its_text(make_collector):
    collector = make_collector()
    message = "a worker process failed: ValueError: the fake is broken\n\nIn the worker: Trace"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        collector.collect([Episode("raise", seed) for seed in (4, BAD_SEED)])


NO_PLACE = (
    "the Ray cluster has had no place for a simulator for {} s. Each of the {} asks for 1 CPU and "
    "{} GPU; the cluster has 2 CPU and 0 GPU, of which {} CPU and 0 GPU are free. Add a machine "
    "(ray start), or lower collector.workers or collector.gpus_per_simulator."
)


def test_a_cluster_without_what_is_asked_for(make_collector, monkeypatch):
    monkeypatch.setattr(workers, "START_UP_SECONDS", 0.5)
    collector = make_collector(gpus=0.5, timeout=0.5)
    message = NO_PLACE.format(0.5, 1, 0.5, 2)
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        collector.collect(MIXED)


@pytest.mark.slow
def test_those_that_have_a_place_go_on_alone(make_collector, monkeypatch, caplog):
    make_collector().collect(MIXED)  # holds one of two places
    collector = make_collector(workers=3)
    expected = collector.collect(MIXED, seed=3)
    monkeypatch.setattr(workers, "START_UP_SECONDS", 0.1)
    collector._pool._timeout = 0.1
    while not caplog.records:
        list(collector._pool.wait())
    collector._pool._timeout = 60.0
    assert same(collector.collect(MIXED, seed=3), expected)
    (said,) = caplog.records  # one line for both that wait
    assert said.getMessage() == NO_PLACE.format(0.1, 3, 0, 0) + " The 1 that have one go on."
