"""The episode collector: what it returns, and what it does when simulators die, hang or fail."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import ClassVar

import pytest
import torch
from fakes import (
    BAD_SEED,
    Constant,
    ManyTasksFactory,
    make_chunked_walk,
    make_walk,
    walk_policy,
)
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torchrl.envs import GymEnv, StepCounter, TransformedEnv

from rftf_torchrl import (
    DecisionEnv,
    Episode,
    EpisodeCollector,
    Task,
    TooManyCrashesError,
    run_episodes,
)
from rftf_torchrl.envs.episodes import EpisodePlayer
from rftf_torchrl.envs.job_queue import JobQueue
from rftf_torchrl.keys import CHUNK

pytestmark = pytest.mark.slow

SEEDS = [4, 7, 5, 9, 6]
LENGTHS = [3, 3, 4, 2, 2]


def episodes(seeds, trouble="none"):
    return [Episode(trouble, seed) for seed in seeds]


def same(first, second) -> bool:
    """Bit by bit, except for log-probabilities and the like, which the fakes do not have."""
    return first.batch_size == second.batch_size and bool((first == second).all())


@pytest.fixture(params=[0, 1, 2])
def workers(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["copy", "server"])
def serve(request):
    return request.param


@pytest.fixture
def make_collector(serve):
    collectors = []

    def make(**arguments):
        arguments = {"timeout": 60.0, "serve": serve, **arguments}
        collectors.append(EpisodeCollector(make_walk, walk_policy(), **arguments))
        return collectors[-1]

    yield make
    for collector in collectors:
        collector.close()


def test_an_environment_may_leave_the_seed_out(make_collector, monkeypatch):
    play = EpisodePlayer.play

    def without_seed(self, *arguments, **how):
        return play(self, *arguments, **how).exclude("episode_seed")

    monkeypatch.setattr(EpisodePlayer, "play", without_seed)
    batch = make_collector(workers=0).collect(episodes(SEEDS), deterministic=True)
    assert batch["episode_seed"].unique().tolist() == sorted(SEEDS)


def test_returns_complete_trajectories_in_the_order_of_the_list(make_collector, workers):
    collector = make_collector(workers=workers)
    seen = []
    batch = collector.collect(
        episodes(SEEDS), deterministic=True, on_episode=lambda result: seen.append(result.index)
    )
    ids = torch.repeat_interleave(torch.arange(5), torch.tensor(LENGTHS))
    assert batch.batch_size == (14,)
    assert batch["collector", "traj_ids"].tolist() == ids.tolist()
    assert batch["episode_seed"].flatten().tolist() == [SEEDS[i] for i in ids]
    ends = torch.tensor(LENGTHS).cumsum(0) - 1
    assert batch["next", "done"].flatten().nonzero().flatten().tolist() == ends.tolist()
    assert batch["state"][:3].tolist() == [[4, 4, 0], [6, 4, 1], [9, 4, 2]]
    assert batch["next", "state"][:3].tolist() == [[6, 4, 1], [9, 4, 2], [13.5, 4, 3]]
    assert batch["loc"][:3].flatten().tolist() == [2, 3, 4.5]
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert (collector.crashed, collector.env_steps) == (0, 14)


def test_the_number_of_workers_changes_nothing_in_deterministic_mode(make_collector, workers):
    mixed = [Episode(f"scene {index % 3}", seed) for index, seed in enumerate(SEEDS)]
    batch = make_collector(workers=workers).collect(mixed, deterministic=True)
    alone = make_collector(workers=0)
    expected = torch.cat([alone.collect([episode], deterministic=True) for episode in mixed])
    del batch["collector"], expected["collector"]
    assert same(batch, expected)


def test_the_batch_can_be_trained_on(make_collector, workers):
    batch = make_collector(workers=workers).collect(episodes(SEEDS))
    policy = walk_policy()
    assert not any(value.is_inference() for value in batch.values(True, True))
    (policy.get_dist(batch).log_prob(batch["action"]) * batch["next", "reward"]).mean().backward()
    assert policy[0].module.weight.grad.abs() > 0


def test_noise_belongs_to_the_seed(make_collector, workers):
    collector = make_collector(workers=workers)
    first = collector.collect(episodes(SEEDS), seed=3)
    again = collector.collect(episodes(SEEDS), seed=3)
    other = collector.collect(episodes(SEEDS), seed=4)
    mean = collector.collect(episodes(SEEDS), deterministic=True)
    assert same(first, again)
    assert not torch.isclose(first["action"], other["action"]).any()
    assert not torch.isclose(first["action"], mean["action"]).any()
    noise = (first["action"] - first["loc"]) / first["scale"]
    assert 0.3 < noise.std() < 2.0


def test_no_two_decisions_share_their_noise(make_collector):
    collector = make_collector(workers=2)
    noise = []
    for seed in (0, 1, 2):
        batch = collector.collect(episodes([3, 3, 6, 9]), seed=seed)
        noise.append((batch["action"] - batch["loc"]) / batch["scale"])
    rounded = torch.cat(noise).flatten().mul(1000).round()
    assert len(rounded.unique()) > 0.8 * len(rounded)


def test_in_process_collection_leaves_the_global_generator_alone(make_collector):
    collector = make_collector(workers=0)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    collector.collect(episodes(SEEDS))
    assert torch.rand(1) == expected


def test_weights_reach_the_workers_when_asked(workers):
    policy = walk_policy()
    with EpisodeCollector(make_walk, policy, workers=workers, timeout=60.0) as collector:
        with torch.no_grad():
            policy[0].module.weight.fill_(2.0)
        old = collector.collect(episodes([4]), deterministic=True)
        collector.update_policy_weights_()
        new = collector.collect(episodes([4]), deterministic=True)
    assert old["action"].flatten().tolist() == [2, 3, 4.5]
    assert new["action"].flatten().tolist() == [8, 24, 72]
    assert policy[0].module.weight.requires_grad


def speaking_hill(episode):
    task = Task(0, "hill", "drive up")
    hill = GymEnv("MountainCarContinuous-v0")
    return DecisionEnv(hill, task, horizon=2, instruction=episode.instruction, write_text=True)


class PushesByItsOrder(TensorDictModuleBase):
    """Acts by the instruction's text alone."""

    in_keys: ClassVar = ["language_instruction"]
    out_keys: ClassVar = ["action"]

    def forward(self, data):
        force = [[0.5 if text == "drive up" else -0.5] for text in data["language_instruction"]]
        return data.set("action", torch.tensor(force))


def test_text_reaches_the_policy_and_comes_back(workers, serve):
    orders = [Episode("hill", 0), Episode("hill", 1, instruction='say "öffne"')]
    with EpisodeCollector(
        speaking_hill, PushesByItsOrder(), workers=workers, serve=serve, timeout=60.0
    ) as collector:
        batch = collector.collect(orders)
    assert batch["language_instruction"] == ["drive up"] * 2 + ['say "öffne"'] * 2
    assert batch["action"].flatten().tolist() == [0.5, 0.5, -0.5, -0.5]


@pytest.mark.parametrize("trouble", ["exit", "sleep", "crash"])
def test_a_crashed_episode_is_dropped_and_counted(make_collector, trouble, caplog):
    collector = make_collector(workers=1, timeout=3.0)
    batch = collector.collect(episodes([4, BAD_SEED, 7, 5], trouble), deterministic=True)
    assert batch["collector", "traj_ids"].unique().tolist() == [0, 2, 3]
    assert BAD_SEED not in batch["episode_seed"]
    assert not batch["next", "crashed"].any()
    assert (collector.crashed, collector.env_steps) == (1, len(batch))
    reasons = {"exit": ["died with exit code 3"], "sleep": ["hung for 3 s"], "crash": []}[trouble]
    assert [record.getMessage() for record in caplog.records] == [
        f"a simulator process {reason}; Episode(task='{trouble}', seed=13, instruction=None), 1 in "
        "the list, is dropped"
        for reason in reasons
    ]
    assert len(collector.collect(episodes([4]))) == 3


def test_a_crash_in_a_reset_is_dropped_and_counted(make_collector, workers, caplog):
    collector = make_collector(workers=workers)
    batch = collector.collect(episodes([4, BAD_SEED, 7], "reset"), deterministic=True)
    assert batch["collector", "traj_ids"].unique().tolist() == [0, 2]
    assert collector.crashed == 1
    (message,) = caplog.messages
    assert "there is no place for the cup" in message
    assert message.endswith("1 in the list, is dropped")


def test_a_crash_changes_no_other_episode(make_collector):
    seeds = [4, BAD_SEED, 7, 5, 9, 6]
    batch = make_collector(workers=2).collect(episodes(seeds, "exit"), seed=3)
    undisturbed = make_collector(workers=0).collect(episodes(seeds, "none"), seed=3)
    left = undisturbed[undisturbed["collector", "traj_ids"] != 1]
    assert same(batch, left)


def test_a_worker_that_died_between_two_collections_is_replaced(make_collector, caplog):
    collector = make_collector(workers=2)
    collector.collect(episodes(SEEDS))
    process = collector._pool.workers[1].process
    process.kill()
    process.join()
    assert len(collector.collect(episodes(SEEDS))) == sum(LENGTHS)
    assert collector.crashed == 0
    assert [record.getMessage() for record in caplog.records] == [
        "a simulator process died with exit code -9; it was playing nothing"
    ]


def test_too_many_crashes(make_collector):
    collector = make_collector(workers=1, max_restarts=1)
    message = (
        "a simulator process died with exit code 3 and no restart is left. Look at the "
        "simulator's own log, or raise max_restarts."
    )
    with pytest.raises(TooManyCrashesError, match=f"^{re.escape(message)}$"):
        collector.collect(episodes([BAD_SEED] * 3, "exit"))
    assert collector.crashed == 2


def test_a_programming_error_is_raised_here_with_its_text(make_collector):
    collector = make_collector(workers=2)
    processes = [worker.process for worker in collector._pool.workers]
    message = "a worker process failed: ValueError: the fake is broken\n\nIn the worker: Trace"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        collector.collect(episodes([4, BAD_SEED], "raise"))
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("trouble", ["crash", "exit"])
def test_nothing_collected_is_an_error(make_collector, trouble):
    collector = make_collector(workers=1)
    with pytest.raises(RuntimeError, match=r"^all 2 episodes crashed: nothing was collected$"):
        collector.collect(episodes([BAD_SEED] * 2, trouble))
    assert collector.crashed == 2


def test_closing_leaves_no_process_even_in_mid_episode(make_collector):
    collector = make_collector(workers=2)
    processes = [worker.process for worker in collector._pool.workers]

    def interrupt(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collector.collect(episodes([4, BAD_SEED], "sleep"), on_episode=interrupt)
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(RuntimeError, match=r"^this collector is closed; make a new one$"):
        collector.collect(episodes([4]))


def test_closing_closes_the_environments_of_this_process():
    envs = []
    with EpisodeCollector(
        lambda episode: envs.append(make_walk(episode)) or envs[-1], walk_policy(), workers=0
    ) as collector:
        collector.collect([Episode("a", 1), Episode("b", 2), Episode("a", 3)])
        assert [env.is_open for env in envs] == [True, True]
    assert [env.is_open for env in envs] == [False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "workers must be 0 or more, got -1"),
        ({"max_restarts": -1}, "max_restarts must be 0 or more, got -1"),
        ({"timeout": 0.0}, "timeout must be a positive number of seconds, got 0.0"),
        ({"batch": 0}, "batch must be at least 1 decision, got 0"),
        ({"wait": -1.0}, "wait must be 0 or more seconds, got -1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        EpisodeCollector(make_walk, walk_policy(), **arguments)


def test_an_environment_that_ignores_the_seed_is_an_error():
    collector = EpisodeCollector(
        lambda episode: TransformedEnv(make_walk(episode), StepCounter()), walk_policy(), workers=0
    )
    message = (
        "the environment of task 'walk' started episode 0 instead of 4: its reset ignored "
        "'episode_seed'. Inside a TransformedEnv, an entry reaches the reset only if it is in the "
        "state_spec."
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        collector.collect([Episode("walk", 4)])


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        (
            CHUNK,
            (4, 3),
            "the policy's ('vla_action', 'chunk') has shape (4, 3), and the environment of task "
            "'lift' takes (2, 3) = (chunk_size, action_dim): build both with the same sizes; in "
            "the recipes, env.chunk_size is that of the cloned policy.",
        ),
        (
            CHUNK,
            (2, 7),
            "the policy's ('vla_action', 'chunk') has shape (2, 7), and the environment of task "
            "'lift' takes (2, 3) = (chunk_size, action_dim): build both with the same sizes; in "
            "the recipes, env.chunk_size is that of the cloned policy.",
        ),
        (
            "action",
            (3,),
            "the policy writes no ('vla_action', 'chunk'), which the environment of task 'lift' "
            "takes, of shape (2, 3); it writes ['action']: give the environment the policy's "
            "chunk_size, or the policy that key.",
        ),
    ],
)
@pytest.mark.parametrize(("workers", "error"), [(0, ValueError), (1, RuntimeError)])
def test_a_policy_of_other_sizes_than_the_environment(key, shape, message, workers, error):
    policy = TensorDictModule(Constant(shape), in_keys=["state"], out_keys=[key])
    with (
        EpisodeCollector(make_chunked_walk, policy, workers=workers) as collector,
        pytest.raises(error, match=re.escape(message)),
    ):
        collector.collect([Episode("lift", 4)])


def test_an_empty_list(make_collector):
    message = "the list of episodes is empty: there is nothing to collect"
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_collector(workers=0).collect([])


MANY = [
    Episode("1", 4),
    Episode("11", 4),
    Episode("2", 5, "go"),
    Episode("1", 6),
    Episode("11", 7, "run"),
]
MANY_LENGTHS = [4, 14, 6, 3, 14]


def test_one_environment_plays_the_tasks_that_share_it(workers):
    with EpisodeCollector(ManyTasksFactory(), walk_policy(), workers=workers) as collector:
        batch = collector.collect(MANY, deterministic=True)
        again = collector.collect(MANY, deterministic=True)
    ids = torch.repeat_interleave(torch.arange(5), torch.tensor(MANY_LENGTHS))
    assert batch["collector", "traj_ids"].tolist() == ids.tolist()
    assert same(batch, again)
    assert batch["episode_seed"].flatten().tolist() == [MANY[i].seed for i in ids]


def test_an_environment_is_told_task_and_sentence_before_each_episode():
    envs = {}
    for _ in run_episodes(
        ManyTasksFactory(), walk_policy(), list(enumerate(MANY)), deterministic=True, envs=envs
    ):
        pass
    assert {name: env.heard for name, env in envs.items()} == {
        1: [("1", None), ("11", None), ("1", None), ("11", "run")],
        2: [("2", "go")],
    }


def test_an_environment_that_can_not_change_its_task():
    class Factory:
        def __call__(self, episode):
            return make_walk(episode)

        def environment_of(self, episode):
            return "the same"

    episodes = [(0, Episode("left", 1)), (1, Episode("right", 1))]
    message = "one environment was given the tasks 'left' and 'right', but it has no set_task(name)"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        list(run_episodes(Factory(), walk_policy(), episodes, deterministic=True))


def test_closing_ends_a_collection_in_another_thread(make_collector):
    collector, begun = make_collector(workers=1), Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            collector.collect, episodes(SEEDS * 400), on_episode=lambda _: begun.set()
        )
        assert begun.wait(60.0)
        collector.close()
        message = "the simulators were closed while they played"
        with pytest.raises(RuntimeError, match=f"^{message}$"):
            future.result()


@pytest.mark.parametrize("serve", [False], ids=["copy"], indirect=True)
def test_copies_leave_the_generator_to_whoever_learns_meanwhile(make_collector):
    torch.manual_seed(0)
    torch.rand(len(SEEDS))
    after = torch.get_rng_state()
    torch.manual_seed(0)
    make_collector(workers=1).collect(episodes(SEEDS), on_episode=lambda _: torch.rand(1))
    assert torch.equal(torch.get_rng_state(), after)


def places(names, workers, pattern):
    """Who plays what, (worker, index) pairs, when workers ask in this order."""
    held = [[] for _ in range(workers)]
    queue = JobQueue(dict(enumerate(names)), held)
    return [queue.take(place) for place in pattern], held


def test_a_worker_goes_on_in_its_environment():
    taken, held = places("aabbcc", 2, [0, 1, 0, 1, 0, 0])
    assert taken == [(0, None), (2, None), (1, None), (3, None), (4, None), (5, None)]
    assert held == [["a", "c"], ["b"]]


def test_a_free_worker_helps_with_the_environments_of_others():
    taken, held = places("aaaa", 3, [0, 1, 2, 0])
    assert taken == [(0, None), (1, None), (2, None), (3, None)]
    assert held == [["a"]] * 3


def test_a_worker_has_at_most_one_environment_more_than_its_share():
    """Two workers and two tasks: one each, and one more."""
    held = [["x", "y"], ["b"]]
    queue = JobQueue(dict(enumerate("abb")), held)
    assert queue.take(1) == (1, None)
    assert queue.take(0) == (0, "x")
    assert queue.take(0) is None
    assert (held, len(queue)) == ([["y", "a"], ["b"]], 1)
