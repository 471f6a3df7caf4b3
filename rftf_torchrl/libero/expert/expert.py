"""A scripted expert for LIBERO's tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rftf_torchrl.libero.expert.motions import Skill, by, grip, move
from rftf_torchrl.libero.expert.plan import next_step
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
    check = next_step(scene, 0)
    del check
    targets = _work(scene)

    def act() -> np.ndarray:
        return servo(scene.position, scene.rotation, next(targets))

    return act


def _work(scene: Scene) -> Skill:
    attempt = 0
    while True:
        step = next_step(scene, attempt)
        if step is None:
            yield from grip(scene, OPEN, 1)
            continue
        yield from step
        attempt += 1
