"""A scripted expert for LIBERO's tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rftf_torchrl.libero.expert.carrying import carry
from rftf_torchrl.libero.expert.furniture import pull_open, push_shut, turn_knob
from rftf_torchrl.libero.expert.motions import Skill, grip
from rftf_torchrl.libero.expert.plan import Goal, order
from rftf_torchrl.libero.expert.scene import Scene
from rftf_torchrl.libero.expert.servo import OPEN, servo


def start_expert(raw: Any) -> Callable[[], np.ndarray]:
    """Take up a task where the simulator is now.

    Args:
        raw: LIBERO's environment, see :attr:`~rftf_torchrl.LiberoSimulator.raw`.

    Returns:
        A function of nothing, to call before each step, that gives the action float64 [7] in
        [-1, 1] for the present state; the last number is exactly -1 or 1.

    Raises:
        UserError: for a goal that it does not do.
    """
    scene = Scene(raw)
    targets = _work(scene, order(scene.goals))

    def act() -> np.ndarray:
        target = next(targets)
        target = replace(target, rotation=scene.reachable(target.rotation))
        return servo(scene.position, scene.rotation, target)

    return act


def _work(scene: Scene, goals: list[Goal]) -> Skill:
    """Do the first goal that is not fulfilled, again and again until all are."""
    attempts = [0] * len(goals)
    while True:
        left = [k for k, goal in enumerate(goals) if not scene.fulfilled(goal)]
        if left:
            yield from _skill(scene, goals[left[0]], attempts[left[0]])
            attempts[left[0]] += 1
        else:
            yield from grip(scene, OPEN, 1)


def _skill(scene: Scene, goal: Goal, attempts: int) -> Skill:
    match goal[0]:
        case "open":
            yield from pull_open(scene, goal, -1.0)
        case "close":
            yield from push_shut(scene, goal, 1.0)
        case "turnon" | "turnoff":
            yield from turn_knob(scene, goal, 1.0 if goal[0] == "turnon" else -1.0)
        case _:
            inside = goal[0] == "in"
            opened = ["open", goal[2]]
            if inside and scene.moves(goal[2]) and not scene.fulfilled(opened):
                yield from pull_open(scene, opened, -1.0)
            yield from carry(scene, goal[1], goal[2], inside, attempts)
