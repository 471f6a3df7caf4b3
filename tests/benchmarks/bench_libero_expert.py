"""How often LIBERO's scripted expert does the tasks of a suite from the official initial states.

The suite's own limit of steps, after ten in which the scene settles, without images. ``--fresh``
plays states that are newly drawn instead, as demonstrations do: those the expert is developed on.
"""

from __future__ import annotations

import argparse
from statistics import fmean

from rftf_torchrl import LiberoSimulator, libero_tasks, wilson_interval
from rftf_torchrl.errors import UserError
from rftf_torchrl.libero.expert.expert import start_expert
from rftf_torchrl.libero.protocol import PROTOCOLS
from rftf_torchrl.libero.starts import FreshStarts, OfficialStarts, Starts
from rftf_torchrl.libero.suites import STATES_PER_TASK, TRAINED


def steps_needed(simulator: LiberoSimulator, starts: Starts, seed: int, limit: int) -> int | None:
    """The steps that an episode takes, ``None`` where the limit is not enough."""
    start = starts(simulator.task.name, seed)
    simulator.reset(start.seed, start.state)
    act = start_expert(simulator.raw)
    for step in range(1, limit + 1):
        if simulator.step(act()):
            return step
    return None


def row(arguments: argparse.Namespace, task: str, starts: Starts, limit: int) -> list[bool]:
    """Play a task, print its row of the table, and return which episodes succeeded."""
    simulator = LiberoSimulator(arguments.suite, task, render=False)
    try:
        played = [steps_needed(simulator, starts, k, limit) for k in range(arguments.states)]
    except UserError as error:
        print(f"| {task} | not done: {error} | | |", flush=True)
        return [False] * arguments.states
    finally:
        simulator.close()
    done = [steps for steps in played if steps is not None]
    mean = f"{fmean(done):.0f}" if done else ""
    print(f"| {task} | {_rate(len(done), len(played))} | {mean} |", flush=True)
    return [steps is not None for steps in played]


def _rate(done: int, tried: int) -> str:
    low, high = wilson_interval(done, tried)
    return f"{done} / {tried} | {done / tried:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: argparse.Namespace) -> None:
    limit = PROTOCOLS["openvla-oft"].limit(arguments.suite)
    starts: Starts = FreshStarts("train") if arguments.fresh else OfficialStarts(arguments.suite)
    kind = "freshly drawn" if arguments.fresh else "official"
    print(f"{arguments.suite}, {arguments.states} {kind} states per task, {limit} steps\n")
    print("| task | done / tried | rate, 95% interval | mean steps |\n|---|---|---|---|")
    tasks = arguments.tasks or list(libero_tasks(arguments.suite))
    outcomes = [row(arguments, task, starts, limit) for task in tasks]
    episodes = [outcome for task in outcomes for outcome in task]
    print(f"| all | {_rate(sum(episodes), len(episodes))} | |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=TRAINED, default="libero_object")
    parser.add_argument("--states", type=int, default=STATES_PER_TASK)
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--fresh", action="store_true")
    main(parser.parse_args())
