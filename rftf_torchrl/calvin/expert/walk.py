"""Walk a chain of tasks with the expert, as the benchmark does with a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from rftf_torchrl.calvin.expert.expert import CalvinExpert
from rftf_torchrl.calvin.simulator import CalvinSimulator

OnStep: TypeAlias = Callable[[int, str, np.ndarray], None]


def walk_chain(
    simulator: CalvinSimulator,
    expert: CalvinExpert,
    tasks: Sequence[str],
    *,
    max_steps: int = 360,
    on_step: OnStep | None = None,
) -> list[int]:
    """Do tasks one after another from where the simulator is, until one fails.

    Args:
        simulator: reset by the caller; left where the chain ended.
        expert: does the tasks.
        tasks: CALVIN's names, in order.
        max_steps: control steps for each task.
        on_step: called before each step with the index of the task, its name and the expert's
            action, without the noise that is executed.

    Returns:
        Steps that each done task took: as many numbers as tasks were done.
    """
    done: list[int] = []
    for index, task in enumerate(tasks):
        start = simulator.info
        expert.start(task, simulator)
        for step in range(1, max_steps + 1):
            action = expert.action(simulator)
            if on_step is not None:
                on_step(index, task, action)
            simulator.step(expert.disturb(action))
            if simulator.achieved(start, [task]):
                done.append(step)
                break
        else:
            break
    return done
