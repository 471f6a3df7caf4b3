"""Stop and kill simulators in a collection, and collect many times: what is lost, what is left.

    python tests/faults/collect_anywhere.py --repeat 5 --collections 200

A simulator that is lost has to be noticed within its timeout and a second, its episode is dropped
and counted, and all others have the bits of an undisturbed collection: with copies of the policy
and with a served one. After many collections the processes hold what they held before.
Prints tables and ends with code 1 where a promise was not held.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
sys.path[:0] = [str(HELPERS)]

from sleeping import SleepingFactory, sleeping_policy  # noqa: E402

from rftf_torchrl import Episode, EpisodeCollector  # noqa: E402

WORKERS, EPISODES, TIMEOUT = 3, 12, 2.0
MOMENTS = {"start": 0, "middle": EPISODES // 2, "end": EPISODES - WORKERS}
LIST = [Episode("sleep", seed) for seed in range(EPISODES)]


def make_collector(serve: bool) -> EpisodeCollector:
    make_env, policy = SleepingFactory(0.01, 10), sleeping_policy(0.01)
    # a batch of one, so that a served policy rounds as a copy does
    return EpisodeCollector(
        make_env, policy, workers=WORKERS, serve=serve, batch=1, timeout=TIMEOUT
    )


class Clock(logging.Handler):
    """When the collector says that a simulator is lost, and what."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((time.monotonic(), record.getMessage()))


def lose_simulator(serve: bool, moment: str, number: int) -> tuple[float, str, bool]:
    """Send a signal to a simulator when so many episodes are done.

    Returns:
        Seconds until it was noticed, what was said, and whether all else is as it would have been.
    """
    clock, sent, done = Clock(), [], []
    logger = logging.getLogger("rftf_torchrl.envs.collector")

    def send(_: object) -> None:
        done.append(1)
        if len(done) >= MOMENTS[moment] and not sent:
            busy = [worker for worker in collector._pool.workers if worker.busy]
            os.kill(busy[0].process.pid, number)
            sent.append(time.monotonic())

    with make_collector(serve) as collector:
        whole = collector.collect(LIST, seed=5)
        logger.addHandler(clock)
        try:
            batch = collector.collect(LIST, seed=5, on_episode=send)
        finally:
            logger.removeHandler(clock)
        kept = batch["collector", "traj_ids"].unique()
        expected = whole[(whole["collector", "traj_ids"][:, None] == kept).any(1)]
        same = bool((batch == expected).all()) and len(kept) == EPISODES - collector.crashed
    ((noticed, line),) = clock.lines
    return noticed - sent[0], line, same and collector.crashed <= 1


def held(collector: EpisodeCollector) -> dict[str, float]:
    """What this process and the workers hold together."""
    processes = [os.getpid(), *(worker.process.pid for worker in collector._pool.workers)]
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


def collect_often(serve: bool, collections: int) -> list[dict[str, float]]:
    """What is held after a tenth of the collections, and after all of them."""
    first = max(1, collections // 10)
    found = []
    with make_collector(serve) as collector:
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
    given = parser.parse_args()
    broken = 0
    print("| policy | signal | moment | trials | slowest, s | at most, s | held |")
    print("|---|---|---|---|---|---|---|")
    for serve in (False, True):
        for number in (signal.SIGKILL, signal.SIGSTOP):
            for moment in MOMENTS:
                trials = [lose_simulator(serve, moment, number) for _ in range(given.repeat)]
                good = sum(same and seconds <= TIMEOUT + 1 for seconds, _, same in trials)
                broken += given.repeat - good
                slowest = max(seconds for seconds, _, _ in trials)
                row = ["server" if serve else "copy", signal.Signals(number).name, moment]
                row += [str(given.repeat), f"{slowest:.2f}", f"{TIMEOUT + 1:g}", str(good)]
                print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n| policy | what | after {given.collections // 10} | after {given.collections} |")
    print("|---|---|---|---|")
    for serve in (False, True):
        before, after = collect_often(serve, given.collections)
        for name in before:
            broken += after[name] > 1.05 * before[name] + 1
            name_of = "server" if serve else "copy"
            print(f"| {name_of} | {name} | {before[name]:.0f} | {after[name]:.0f} |", flush=True)
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
