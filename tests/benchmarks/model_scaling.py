"""A model of simulators, servers of the policy and learner: where the time of an iteration goes.

    python tests/benchmarks/model_scaling.py

Events in order of time, no real process and no real GPU. First it is compared with what was
measured, then it says what 1,000 simulators over 8 GPUs would do. What is put in for them is
assumed; ``rftf bench`` measures it for a simulator and a policy.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import count
from statistics import median
from typing import Any

LATENCY = 0.005
"""Seconds that a batch takes besides: the one number fitted, to 4 that sleep, on a busy machine."""


@dataclass(frozen=True)
class Machine:
    """One server of the policy with its simulators; times in seconds.

    Attributes:
        simulators: how many.
        cores: that compute for them.
        sleep: a simulator's time per decision that takes no core.
        compute: its time per decision on a core.
        spread: of both, so much more or less, uniformly, as a share.
        reset: in decisions.
        route: of the server's Python thread, per decision.
        policy: of a batch: for itself, and for each of its rows.
        gpu: whether batches and learner share one; if not, the learner has its own.
        latency: what a batch takes besides, between threads.
        batch: largest batch.
        wait: for simulators that have not asked, as a share of a batch's own time.
        learn: on its GPU, per decision of the iteration, all passes together.
        exchange: of gradients, per minibatch.
        minibatch: in decisions, on this machine.
        passes: over the decisions, of which each has so many minibatches.
    """

    simulators: int
    cores: int
    sleep: float = 0.0
    compute: float = 0.0
    spread: float = 0.0
    reset: float = 1.0
    route: float = 0.0
    policy: tuple[float, float] = (0.0, 0.0)
    gpu: bool = True
    latency: float = 0.0
    batch: int | None = None
    wait: float = 0.5
    learn: float = 0.0
    exchange: float = 0.0
    minibatch: int = 64
    passes: int = 4


@dataclass
class Time:
    """Of a collection, and of the learner beside it or alone; in seconds.

    Attributes:
        collect: from the first episode to the end of the last one.
        learn: from its beginning to its end.
        decisions: how many were taken.
        batches: of the policy.
        computing: of the simulators, all added up.
        asking: of the simulators, from their question to the answer.
        policy: in which the policy computed.
    """

    collect: float = 0.0
    learn: float = 0.0
    decisions: int = 0
    batches: int = 0
    computing: float = 0.0
    asking: float = 0.0
    policy: float = 0.0


class Queue:
    """Places that serve one after another who comes first: cores, a thread, a GPU."""

    def __init__(self, places: int) -> None:
        self._free = [0.0] * places

    def end(self, now: float, seconds: float) -> float:
        """When the work of who comes now is done."""
        done = max(now, heapq.heappop(self._free)) + seconds
        heapq.heappush(self._free, done)
        return done


class Model:
    """Events of one machine: episodes are played, and decisions learned from, if there are any.

    Args:
        machine: what there is.
        episodes: the decisions of each episode to play.
        learned: decisions of which the learner computes meanwhile.
        seed: of what is random.
    """

    def __init__(
        self, machine: Machine, episodes: list[int], learned: int = 0, seed: int = 0
    ) -> None:
        self.machine, self.time = machine, Time(decisions=sum(episodes))
        self._random, self._waiting = random.Random(seed), deque(episodes)
        self._cores, self._thread = Queue(machine.cores), Queue(1)
        self._gpu, self._learner = Queue(1), Queue(1)
        if machine.gpu:
            self._learner = self._gpu
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = count()
        self._asked: list[tuple[float, int]] = []
        self._busy, self._playing, self._timer = False, 0, 0
        self._last: list[float] = []
        for _ in range(machine.simulators):
            self._begin_episode(0.0)
        if learned:
            minibatches = machine.passes * -(-learned // machine.minibatch)
            self._learn(0.0, minibatches, machine.learn * learned / minibatches)
        while self._events:
            now, _, what, arguments = heapq.heappop(self._events)
            what(now, *arguments)

    def _at(self, moment: float, what: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (moment, next(self._number), what, arguments))

    def _begin_episode(self, now: float) -> None:
        if self._waiting:
            self._playing += 1
            self._simulate(now, self._waiting.popleft(), self.machine.reset)

    def _simulate(self, now: float, left: int, decisions: float = 1.0) -> None:
        machine = self.machine
        share = decisions * self._random.uniform(1 - machine.spread, 1 + machine.spread)
        slept = now + share * machine.sleep
        self.time.computing += share * (machine.sleep + machine.compute)
        self._at(slept, self._compute, share * machine.compute, left)

    def _compute(self, now: float, seconds: float, left: int) -> None:
        self._at(self._cores.end(now, seconds), self._ask, left)

    def _ask(self, now: float, left: int) -> None:
        self.time.collect = now
        if not left:
            self._playing -= 1
            self._begin_episode(now)
            self._start(now)
        else:
            self._at(self._thread.end(now, self.machine.route / 2), self._arrive, now, left)

    def _arrive(self, now: float, asked: float, left: int) -> None:
        self._asked.append((asked, left))
        if len(self._asked) == 1 and not self._busy:
            self._wait(now)
        self._start(now)

    def _wait(self, now: float) -> None:
        self._timer += 1
        longest = self.machine.wait * median(self._last or [0.0])
        self._at(now + longest, self._start, self._timer)

    def _start(self, now: float, timer: int = 0) -> None:
        expected = max(1, min(self._playing, self.machine.batch or self.machine.simulators))
        due = len(self._asked) >= expected or (timer and timer == self._timer)
        if self._busy or not self._asked or not due:
            return
        rows = self._asked[: self.machine.batch]
        del self._asked[: len(rows)]
        self._busy = True
        seconds = self.machine.policy[0] + self.machine.policy[1] * len(rows)
        self._last = [*self._last, seconds][-9:]
        self.time.batches += 1
        self.time.policy += seconds
        self._at(self._gpu.end(now, seconds) + self.machine.latency, self._answer, rows)

    def _answer(self, now: float, rows: list[tuple[float, int]]) -> None:
        self._busy = False
        for asked, left in rows:
            ready = self._thread.end(now, self.machine.route / 2)
            self.time.asking += ready - asked
            self._at(ready, self._simulate, left - 1)
        if self._asked:
            self._wait(now)
            self._start(now)

    def _learn(self, now: float, minibatches: int, seconds: float) -> None:
        self.time.learn = now
        if minibatches:
            done = self._learner.end(now, seconds) + self.machine.exchange
            self._at(done, self._learn, minibatches - 1, seconds)


def iteration(
    machine: Machine, machines: int, episodes: list[int], overlap: bool, learners: int | None = None
) -> Time:
    """An iteration of a long run on equal machines; each waits for all others.

    Args:
        machine: each of them.
        machines: how many.
        episodes: the decisions of each episode of an iteration.
        overlap: whether the machines play the next iteration meanwhile.
        learners: GPUs that share the decisions; one a machine if not given.

    Returns:
        The sums over the machines; ``collect`` and ``learn`` are those of the slowest.
    """
    learned = sum(episodes) // (learners or machines)
    times = [
        Model(machine, episodes[number::machines], learned if overlap else 0, seed=number).time
        for number in range(machines)
    ]
    if not overlap:
        times.append(Model(replace(machine, simulators=0), [], learned).time)
    longest = {name: max(getattr(time, name) for time in times) for name in ("collect", "learn")}
    sums = {f.name: sum(getattr(time, f.name) for time in times) for f in fields(Time)}
    return Time(**(sums | longest))


def seconds(time: Time, overlap: bool) -> float:
    """Of an iteration: the two parts follow each other, or the longer one is what it takes."""
    return max(time.collect, time.learn) if overlap else time.collect + time.learn


# tests/benchmarks/bench_policy_server.py, and what docs/how-to/large-policies.md says it measured.
LENGTH = 20
SLEEPING = Machine(
    0, cores=2, sleep=0.02, compute=0.0009, route=0.00016, policy=(0.1, 0.0), latency=LATENCY
)
MEASURED = {4: 32.1, 16: 124.7, 64: 442.2}
SIXTEEN = {4: 10.0, 8: 5.1, 16: 2.6}


def table(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def check() -> None:
    """Compare the model with what was measured."""
    table("simulators", "decisions/s, measured", "model", "model / measured")
    for simulators, rate in MEASURED.items():
        time = Model(replace(SLEEPING, simulators=simulators), [LENGTH] * (2 * simulators)).time
        found = time.decisions / time.collect
        print(f"| {simulators} | {rate} | {found:.1f} | {found / rate:.2f} |")
    table("simulators", "16 episodes, measured", "model", "model / measured")
    for simulators, taken in SIXTEEN.items():
        found = Model(replace(SLEEPING, simulators=simulators), [LENGTH] * 16).time.collect
        print(f"| {simulators} | {taken} s | {found:.1f} s | {found / taken:.2f} |")


# Assumed: a simulator with two cameras, a policy of half a billion parameters with cached towers.
# A pass forward and back takes three times as long as one forward; four epochs, and the reference.
# Overlap is what it would bring: `ppo.overlap` plays with copies, not with a served policy.
GPUS, EPISODES = 8, 4000
LARGE = Machine(
    simulators=125,
    cores=125,
    compute=0.3,
    spread=0.5,
    reset=10.0,
    route=0.001,
    policy=(0.03, 0.001),
    latency=LATENCY,
    learn=0.013,
    exchange=0.05,
)
BILLIONS = replace(LARGE, policy=(0.06, 0.005), learn=0.065)
CASES: dict[str, tuple[Machine, bool]] = {
    "as assumed": (LARGE, False),
    "overlap": (LARGE, True),
    "overlap, and 8 more GPUs to decide": (replace(LARGE, gpu=False), True),
    "two simulators on a core": (replace(LARGE, cores=63), False),
    "four simulators on a core": (replace(LARGE, cores=32), False),
    "`collector.wait` of 0": (replace(LARGE, wait=0.0), False),
    "`collector.wait` of twice as long": (replace(LARGE, wait=1.0), False),
    "`collector.batch=32`": (replace(LARGE, batch=32), False),
    "32 simulators a GPU": (replace(LARGE, simulators=32, cores=32), False),
    "32 simulators a GPU, overlap": (replace(LARGE, simulators=32, cores=32), True),
    "64 simulators a GPU": (replace(LARGE, simulators=64, cores=64), False),
    "64 simulators a GPU, overlap": (replace(LARGE, simulators=64, cores=64), True),
    "a policy five times as slow": (BILLIONS, False),
    "the same, 32 simulators a GPU, overlap": (replace(BILLIONS, simulators=32, cores=32), True),
}


def large(episodes: int = EPISODES) -> None:
    """1,000 simulators over 8 GPUs: where the time goes, and what each setting changes."""
    lengths = random.Random(0)
    drawn = [lengths.randint(10, 40) for _ in range(episodes)]
    found = {
        name: (iteration(machine, GPUS, drawn, overlap), overlap, machine)
        for name, (machine, overlap) in CASES.items()
    }
    one = replace(LARGE, simulators=GPUS * LARGE.simulators, cores=GPUS * LARGE.cores)
    for name, machine in {
        "one server for all": one,
        "one server for all, `collector.batch=125`": replace(one, batch=125),
    }.items():
        found[name] = iteration(machine, 1, drawn, False, learners=GPUS), False, machine
    table(
        *("", "iteration", "collection", "learner", "decisions/s", "mean batch"),
        *("simulators compute", "wait for a decision", "GPUs decide"),
    )
    for name, (time, overlap, machine) in found.items():
        servers = 1 if machine.simulators >= one.simulators else GPUS
        held = servers * machine.simulators * time.collect
        print(
            f"| {name} | {seconds(time, overlap):.0f} s | {time.collect:.0f} s | "
            f"{time.learn:.0f} s | {time.decisions / time.collect:,.0f} | "
            f"{time.decisions / time.batches:.0f} | {time.computing / held:.0%} | "
            f"{time.asking / held:.0%} | {time.policy / GPUS / time.collect:.0%} |"
        )


if __name__ == "__main__":
    check()
    large()
