"""How near a served policy comes to its ideal: simulators and policy that only sleep.

    python tests/benchmarks/bench_policy_server.py

With n simulators of 20 ms a decision and a policy of 100 ms a batch, n decisions take 120 ms at
best. Target: at least 0.85 of that for 4, 16 and 64 simulators. Then 16 episodes of one task, which
without the server are played one after another.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from sleeping import SleepingFactory, sleeping_policy

from rftf_torchrl import Episode, EpisodeCollector

SIMULATOR, POLICY, LENGTH = 0.02, 0.1, 20


def seconds(workers: int, episodes: int) -> tuple[float, float]:
    """Of the second collection, and the mean size of its batches."""
    tasks = [Episode("sleep", seed) for seed in range(episodes)]
    make_env, policy = SleepingFactory(SIMULATOR, LENGTH), sleeping_policy(POLICY)
    with EpisodeCollector(make_env, policy, workers=workers, serve=True) as collector:
        collector.collect([Episode("sleep", seed) for seed in range(4 * workers or 1)])
        begin = time.perf_counter()
        collector.collect(tasks)
        taken = time.perf_counter() - begin
        stats = collector.server_stats
    return taken, stats.get("avg_batch_size", 1.0)


if __name__ == "__main__":
    print("| simulators | decisions/s | ideal | ratio | mean batch |\n|---|---|---|---|---|")
    for workers in (4, 16, 64):
        taken, batch = seconds(workers, 2 * workers)
        rate, ideal = 2 * workers * LENGTH / taken, workers / (SIMULATOR + POLICY)
        print(f"| {workers} | {rate:.1f} | {ideal:.1f} | {rate / ideal:.2f} | {batch:.1f} |")
    print("\n| 16 episodes of one task | seconds | mean batch |\n|---|---|---|")
    for workers in (0, 4, 8, 16):
        taken, batch = seconds(workers, 16)
        print(f"| {workers or 'no'} simulator processes | {taken:.1f} | {batch:.1f} |")
