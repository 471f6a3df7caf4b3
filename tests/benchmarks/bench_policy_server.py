"""How near a served policy comes to its ideal: simulators and policy that only sleep.

    python tests/benchmarks/bench_policy_server.py
    python tests/benchmarks/bench_policy_server.py --simulators 64 --length 100
    python tests/benchmarks/bench_policy_server.py --engine ray --simulators 4 16

With n simulators of 20 ms a decision and a policy of 100 ms a batch, n decisions take 120 ms at
best. Target: at least 0.85 of that for 4, 16 and 64 simulators, 0.8 where they are Ray actors.
*Bare* is what n Python processes reach that only wait for a number, sleep, and send one back: what
the machine leaves to any server of processes. Then 16 episodes of one task, which without the
server are played one after another.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import sys
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from sleeping import SleepingFactory, sleeping_policy

from rftf_torchrl import Episode, EpisodeCollector

SIMULATOR, POLICY = 0.02, 0.1
BARE_BATCHES = 40


def seconds(
    workers: int, episodes: int, engine: str = "process", length: int = 20
) -> tuple[float, float, float]:
    """Of the start, of the second collection, and the mean size of its batches."""
    tasks = [Episode("sleep", seed) for seed in range(episodes)]
    make_env, policy = SleepingFactory(SIMULATOR, length), sleeping_policy(POLICY)
    begin = time.perf_counter()
    with EpisodeCollector(
        make_env, policy, workers=workers, engine=engine, serve=True
    ) as collector:
        while not all(worker.ready for worker in collector._pool.workers):
            list(collector._pool.wait())
        start = time.perf_counter() - begin
        collector.collect([Episode("sleep", seed) for seed in range(4 * workers or 1)])
        begin = time.perf_counter()
        collector.collect(tasks)
        taken = time.perf_counter() - begin
        stats = collector.server_stats
    if engine == "ray":
        import ray

        ray.shutdown()  # the next cluster has another size
    return start, taken, stats.get("avg_batch_size", 1.0)


def sleep_and_send(line: Connection) -> None:
    """A simulator without anything else."""
    while line.recv() is not None:
        time.sleep(SIMULATOR)
        line.send(0)


def bare_rate(workers: int) -> float:
    """Decisions per second of processes that only sleep and a loop that only waits for all."""
    context = mp.get_context("fork")
    pairs = [context.Pipe() for _ in range(workers)]
    lines = [ours for ours, _ in pairs]
    processes = [context.Process(target=sleep_and_send, args=(theirs,)) for _, theirs in pairs]
    for process in processes:
        process.start()
    begin = 0.0
    for batch in range(2 + BARE_BATCHES):  # the first two warm up
        if batch == 2:
            begin = time.perf_counter()
        for line in lines:
            line.send(batch)
        missing = set(lines)
        while missing:
            for line in wait(missing):
                line.recv()
                missing.remove(line)
        time.sleep(POLICY)
    taken = time.perf_counter() - begin
    for line, process in zip(lines, processes, strict=True):
        line.send(None)
        process.join()
    return workers * BARE_BATCHES / taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=["process", "ray"], default="process")
    parser.add_argument("--simulators", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--length", type=int, default=20, help="decisions of an episode")
    given = parser.parse_args()
    print("| simulators | start, s | decisions/s | ideal | bare | ratio | of bare | mean batch |")
    print("|---|---|---|---|---|---|---|---|")
    for workers in given.simulators:
        start, taken, batch = seconds(workers, 2 * workers, given.engine, given.length)
        rate, ideal = 2 * workers * given.length / taken, workers / (SIMULATOR + POLICY)
        bare = bare_rate(workers)
        row = [workers, *(f"{each:.1f}" for each in (start, rate, ideal, bare))]
        ratios = f"{rate / ideal:.2f} | {rate / bare:.2f}"
        print(f"| {' | '.join(map(str, row))} | {ratios} | {batch:.1f} |", flush=True)
    if given.engine == "ray" or given.length != 20:
        sys.exit()
    print("\n| 16 episodes of one task | seconds | mean batch |\n|---|---|---|")
    for workers in (0, 4, 8, 16):
        _, taken, batch = seconds(workers, 16)
        print(f"| {workers or 'no'} simulator processes | {taken:.1f} | {batch:.1f} |")
