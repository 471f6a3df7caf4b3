"""Worker processes: their messages, and what happens when one is lost."""

import re
from functools import partial

import pytest
from echo_player import EchoPlayer, OncePlayer

from rftf_torchrl import SimulatorCrashedError, TooManyCrashesError, errors
from rftf_torchrl.calvin import simulator as calvin
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost
from rftf_torchrl.envs.workers import Processes
from rftf_torchrl.metaworld import simulator as metaworld


@pytest.fixture
def make_pool():
    pools = []

    def make(player=EchoPlayer, size=1, max_restarts=1, timeout=60.0, **arguments):
        start = Processes(partial(player, **arguments), preload="echo_player")
        pools.append(GuardedPool(start, size, timeout=timeout, max_restarts=max_restarts))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def answers(pool, *jobs):
    """All that comes of one job for each worker."""
    for place, job in enumerate(jobs):
        pool.submit(place, job)
    found = []
    while pool.busy:
        found += pool.wait()
    return found


def test_every_message_names_its_worker_and_then_it_is_free(make_pool):
    pool = make_pool(size=2)
    found = answers(pool, "a", "b")
    assert [message for place, message in found if place == 0] == ["a begun", "a done"]
    assert [message for place, message in found if place == 1] == ["b begun", "b done"]
    assert pool.free() == [0, 1]
    assert answers(pool, "c") == [(0, "c begun"), (0, "c done")]


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("crash", "crashed: the robot fell"),
        ("exit", "died with exit code 3"),
        ("sleep", "hung for 1 s"),
    ],
)
def test_a_lost_worker_is_reported_and_replaced(make_pool, job, why):
    pool = make_pool(timeout=1.0)
    answers(pool, "a")  # it has started
    before = pool.workers[0].process
    assert answers(pool, job) == [(0, Lost(why))]
    assert not before.is_alive()
    assert answers(pool, "b") == [(0, "b begun"), (0, "b done")]


def test_no_restart_is_left(make_pool):
    pool = make_pool(max_restarts=0)
    message = (
        "a simulator process crashed: the robot fell and no restart is left. Look at the "
        "simulator's own log, or raise max_restarts."
    )
    with pytest.raises(TooManyCrashesError, match=f"^{re.escape(message)}$"):
        answers(pool, "crash")


@pytest.mark.parametrize(
    ("trouble", "job", "message"),
    [
        (None, "raise", "KeyError: 'the fake is broken'"),
        (None, "lose", "BrokenPipeError: the renderer is gone"),
        ("raise", "a", "KeyError: 'no player'"),
    ],
)
def test_a_programming_error_is_raised_here(make_pool, trouble, job, message):
    whole = f"a worker process failed: {message}\n\nIn the worker: Traceback"
    with pytest.raises(RuntimeError, match=f"^{re.escape(whole)}"):
        answers(make_pool(trouble=trouble), job)


def test_what_a_worker_lacks_is_raised_here_as_it_was_there(make_pool):
    with pytest.raises(errors.UserError, match=r"^no library to draw with$"):
        answers(make_pool(trouble="lack"), "a")


def test_workers_that_can_not_start_end_the_wait(make_pool):
    pool = make_pool(trouble="exit", max_restarts=0)
    message = (
        "a simulator process died with exit code 4 and no restart is left. Look at the "
        "simulator's own log, or raise max_restarts."
    )
    with pytest.raises(TooManyCrashesError, match=f"^{re.escape(message)}$"):
        answers(pool, "a")


def test_a_free_worker_closes_its_player(make_pool, tmp_path):
    pool = make_pool(closed=tmp_path / "closed")
    answers(pool, "a")
    processes = [worker.process for worker in pool.workers]
    pool.close()
    assert (tmp_path / "closed").exists()
    assert not any(process.is_alive() for process in processes)


def test_both_simulators_crash_with_one_error():
    assert (
        SimulatorCrashedError
        is errors.SimulatorCrashedError
        is calvin.SimulatorCrashedError
        is metaworld.SimulatorCrashedError
    )


class Expecting:
    """A server that nobody asks."""

    def __init__(self):
        self.expected = []

    def check(self):
        pass

    def expect(self, playing):
        self.expected.append(playing)


def test_a_server_expects_a_worker_between_two_jobs_too(make_pool):
    pool, server = make_pool(OncePlayer, size=2), Expecting()
    while len(pool.ready()) < 2:
        list(pool.wait())
    jobs = {number: str(number) for number in range(20)}
    assert dict(pool.play(jobs, 1, server=server)) == jobs
    assert server.expected[0] == 2
    assert server.expected == sorted(server.expected, reverse=True)


class Answers:
    """A worker whose answers all arrive at once, with the last job; ``given`` is shared."""

    ready, begun, pid = True, True, 0

    def __init__(self, given, deliver, clock):
        self.given, self.deliver, self.busy = given, deliver, False

    def submit(self, job):
        self.busy = True
        self.given.append((self, job))
        if job == "fails":
            self.deliver(self, "error", "the fake is broken")
            for worker, done in self.given[:-1]:
                self.deliver(worker, "message", done)

    def hung(self, timeout):
        return None

    def kill(self):
        pass


def test_what_came_beside_an_error_is_not_lost():
    pool = GuardedPool(partial(Answers, []), 3, timeout=60.0, max_restarts=0)
    found = []
    with pytest.raises(RuntimeError, match="the fake is broken"):
        found.extend(pool.play({0: "a", 1: "b", 2: "fails"}, 1))
    assert found == [(0, "a"), (1, "b")]
