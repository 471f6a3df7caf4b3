"""Stop and kill simulators in a collection, and collect many times: what is lost, what is left.

    python tests/faults/collect_anywhere.py --repeat 5 --collections 200
    python tests/faults/collect_anywhere.py --repeat 5 --collections 200 --engine ray

A simulator that is lost has to be noticed within its timeout and a second, its episode is dropped
and counted, and all others have the bits of an undisturbed collection: with copies of the policy
and with a served one. No simulator's process is left 10 s later. After many collections the
processes hold what they held before.
Prints tables and ends with code 1 where a promise was not held.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
sys.path[:0] = [str(HELPERS)]

from sleeping import SleepingFactory, sleeping_policy  # noqa: E402

from rftf_torchrl import Episode, EpisodeCollector  # noqa: E402

WORKERS, EPISODES, TIMEOUT, LEFT_SECONDS = 3, 12, 2.0, 10.0
MOMENTS = {"start": 0, "middle": EPISODES // 2, "end": EPISODES - WORKERS}
LIST = [Episode("sleep", seed) for seed in range(EPISODES)]


def make_collector(serve: bool, engine: str = "process") -> EpisodeCollector:
    make_env, policy = SleepingFactory(0.01, 10), sleeping_policy(0.01)
    # a batch of one, so that a served policy rounds as a copy does
    return EpisodeCollector(
        make_env,
        policy,
        workers=WORKERS,
        engine=engine,
        serve=serve,
        batch=1,
        timeout=TIMEOUT,
    )


class Clock(logging.Handler):
    """When the collector says that a simulator is lost, and what."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((time.monotonic(), record.getMessage()))


def lose_simulator(
    serve: bool, moment: str, number: int, engine: str = "process"
) -> tuple[float, str, bool]:
    """Send a signal to a simulator when so many episodes are done.

    Returns:
        As :func:`lose`, with one line.
    """

    processes = set()

    def send(collector: EpisodeCollector) -> None:
        processes.update(worker.pid for worker in collector._pool.workers)
        busy = [worker for worker in collector._pool.workers if worker.busy]
        os.kill(busy[0].pid, number)

    with make_collector(serve, engine) as collector:
        noticed, (line,), same = lose(collector, moment, send)
    return noticed, line, same and collector.crashed <= 1 and gone(processes)


def lose_node(serve: bool, moment: str, number: int) -> tuple[float, list[str], bool]:
    """Send a signal to all processes of the second of two nodes of a Ray cluster.

    Returns:
        As :func:`lose`, with a line for each simulator of that node.
    """
    from _ray import cluster_of

    processes: list[int] = []

    def send(_: EpisodeCollector) -> None:
        node, *_ = cluster.worker_nodes
        raylet = node.all_processes["raylet"][0].process.pid
        processes.extend([*children_of(raylet), raylet])
        signal_to(processes, number)

    try:
        with cluster_of(1, 2) as cluster, make_collector(serve, "ray") as collector:
            noticed, lines, same = lose(collector, moment, send)
    finally:
        signal_to(processes, signal.SIGKILL)  # what stands for a machine that stopped
    same = same and collector.crashed <= len(lines) <= 2
    return noticed, lines, same and gone(processes)


def signal_to(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def gone(processes: Iterable[int]) -> bool:
    """Whether none of them is left after a while."""
    deadline = time.monotonic() + LEFT_SECONDS
    left = list(processes)
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [process for process in left if Path(f"/proc/{process}").exists()]
    return not left


def children_of(parent: int) -> list[int]:
    """The processes that a process started."""
    tasks = Path(f"/proc/{parent}/task").iterdir()
    return [
        int(child)
        for task in tasks
        for child in Path(task, "children").read_text(encoding="ascii").split()
    ]


def lose(
    collector: EpisodeCollector, moment: str, send: Callable[[EpisodeCollector], None]
) -> tuple[float, list[str], bool]:
    """Play the list, and play it again with a trouble when so many episodes are done.

    Returns:
        Seconds until it was noticed, what was said, and whether all else is as it would have been.
    """
    clock, sent, done = Clock(), [], []
    envs = logging.getLogger("rftf_torchrl.envs")
    loggers = [envs.getChild("collector"), envs.getChild("guarded_pool")]

    def played(_: object) -> None:
        done.append(1)
        if len(done) >= MOMENTS[moment] and not sent:
            sent.append(time.monotonic())
            send(collector)

    while not all(worker.ready for worker in collector._pool.workers):
        list(collector._pool.wait())
    whole = collector.collect(LIST, seed=5)
    for logger in loggers:
        logger.addHandler(clock)
    try:
        batch = collector.collect(LIST, seed=5, on_episode=played)
    finally:
        for logger in loggers:
            logger.removeHandler(clock)
    kept = batch["collector", "traj_ids"].unique()
    expected = whole[(whole["collector", "traj_ids"][:, None] == kept).any(1)]
    same = bool((batch == expected).all()) and len(kept) == EPISODES - collector.crashed
    noticed, lines = zip(*clock.lines, strict=True)
    return max(noticed) - sent[0], list(lines), same


def held(collector: EpisodeCollector) -> dict[str, float]:
    """What this process and the workers hold together."""
    processes = [os.getpid(), *(worker.pid for worker in collector._pool.workers)]
    folders = [Path(f"/proc/{process}") for process in processes]
    pages = [int((folder / "statm").read_text(encoding="ascii").split()[1]) for folder in folders]
    return {
        "file descriptors": sum(len(list((folder / "fd").iterdir())) for folder in folders),
        "threads": sum(len(list((folder / "task").iterdir())) for folder in folders),
        "mappings of shared memory": sum(
            (folder / "maps").read_text(encoding="utf-8").count("/dev/shm/") for folder in folders
        ),
        "resident memory, MiB": sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20,
    }


def collect_often(serve: bool, collections: int, engine: str = "process") -> list[dict[str, float]]:
    """What is held after a tenth of the collections, and after all of them."""
    first = max(1, collections // 10)
    found = []
    with make_collector(serve, engine) as collector:
        for number in range(1, collections + 1):
            collector.collect(LIST[:WORKERS], seed=number)
            if number in (first, collections):
                time.sleep(0.2)  # threads that have ended are gone
                found.append(held(collector))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--collections", type=int, default=200)
    parser.add_argument("--engine", choices=["process", "ray"], default="process")
    given = parser.parse_args()
    broken = 0
    ways: dict[str, Callable[..., tuple[float, Any, bool]]] = {
        "simulator": partial(lose_simulator, engine=given.engine)
    }
    if given.engine == "ray":
        os.environ["RAY_ADDRESS"] = "local"
        ways["node"] = lose_node
    print("| lost | policy | signal | moment | trials | slowest, s | at most, s | held |")
    print("|---|---|---|---|---|---|---|---|")
    numbers = (signal.SIGKILL, signal.SIGSTOP)
    for what, serve, number, moment in product(ways, (False, True), numbers, MOMENTS):
        trials = [ways[what](serve, moment, number) for _ in range(given.repeat)]
        good = sum(same and seconds <= TIMEOUT + 1 for seconds, _, same in trials)
        broken += given.repeat - good
        slowest = max(seconds for seconds, _, _ in trials)
        row = [what, "server" if serve else "copy", signal.Signals(number).name, moment]
        row += [str(given.repeat), f"{slowest:.2f}", f"{TIMEOUT + 1:g}", str(good)]
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n| policy | what | after {given.collections // 10} | after {given.collections} |")
    print("|---|---|---|---|")
    for serve in (False, True):
        before, after = collect_often(serve, given.collections, given.engine)
        for name in before:
            broken += after[name] > 1.05 * before[name] + 1
            name_of = "server" if serve else "copy"
            print(f"| {name_of} | {name} | {before[name]:.0f} | {after[name]:.0f} |", flush=True)
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
