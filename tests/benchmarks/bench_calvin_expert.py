"""How often the scripted expert does each of CALVIN's tasks, and how far it gets in chains of five.

Each chain begins at a reset and is walked until a task fails, 360 control steps per task, without
images. ``--chains benchmark`` are the benchmark's thousand, which are in scene D; the default are
chains and scenes that are kept for training, in any scene.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean, median, stdev

import numpy as np

from rftf_torchrl import (
    CalvinExpert,
    CalvinSimulator,
    Chain,
    benchmark_sequences,
    initial_scene,
    training_scene,
    training_sequences,
    wilson_interval,
)
from rftf_torchrl.calvin.tasks import TASKS

Start = tuple[Chain, np.ndarray, np.ndarray]


def starts(arguments: argparse.Namespace) -> Iterator[Start]:
    if arguments.chains == "benchmark":
        for chain in benchmark_sequences(arguments.count):
            yield chain, *initial_scene(chain.initial_state)
    else:
        for seed, chain in enumerate(training_sequences(arguments.seed, arguments.count)):
            yield chain, *training_scene(chain.initial_state, seed, arguments.scene)


def attempt(simulator: CalvinSimulator, expert: CalvinExpert, task: str) -> int | None:
    """The steps that a task takes, ``None`` where 360 are not enough."""
    start = simulator.info
    expert.start(task, simulator)
    for step in range(1, 361):
        simulator.step(expert.disturb(expert.action(simulator)))
        if simulator.achieved(start, [task]):
            return step
    return None


def walk(arguments: argparse.Namespace) -> tuple[list[int], dict[str, list[int | None]]]:
    """Lengths of the chains, and by task the steps of each attempt, ``None`` for a failure."""
    simulator = CalvinSimulator(arguments.scene)
    expert = CalvinExpert(noise=arguments.noise, seed=arguments.seed)
    lengths: list[int] = []
    attempts: dict[str, list[int | None]] = defaultdict(list)
    for chain, robot_obs, scene_obs in starts(arguments):
        simulator.reset(robot_obs, scene_obs)
        lengths.append(0)
        for task in chain.tasks:
            steps = attempt(simulator, expert, task)
            attempts[task].append(steps)
            if steps is None:
                break
            lengths[-1] += 1
    simulator.close()
    return lengths, attempts


def report(lengths: list[int], attempts: dict[str, list[int | None]]) -> str:
    lines = ["| task | done / tried | rate, 95% interval | median steps |", "|---|---|---|---|"]
    for task in TASKS:
        done = [steps for steps in attempts[task] if steps is not None]
        tried = len(attempts[task])
        if not tried:
            lines.append(f"| {task} | 0 / 0 | | |")
            continue
        low, high = wilson_interval(len(done), tried)
        steps = f"{median(done):.0f}" if done else ""
        rate = f"{len(done) / tried:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"| {task} | {len(done)} / {tried} | {rate} | {steps} |")
    margin = 1.96 * stdev(lengths) / len(lengths) ** 0.5 if len(lengths) > 1 else float("nan")
    rates = [fmean(length >= k for length in lengths) for k in range(1, 6)]
    lines.append("")
    lines.append(f"Average length {fmean(lengths):.3f} +- {margin:.3f} over {len(lengths)} chains")
    lines.append("1 to 5 in a row: " + ", ".join(f"{rate:.3f}" for rate in rates))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", choices=("training", "benchmark"), default="training")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--scene", choices=("A", "B", "C", "D"), default="D")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    if parsed.chains == "benchmark" and parsed.scene != "D":
        parser.error("the benchmark's chains are in scene D")
    print(report(*walk(parsed)))
