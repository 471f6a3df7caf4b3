"""Where episodes begin when no bank of states is given: at the starts of chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from rftf_torchrl.calvin.scenes import initial_scene, training_scene
from rftf_torchrl.calvin.sequences import starting_states
from rftf_torchrl.calvin.settings import Scene, check_scene
from rftf_torchrl.calvin.tasks import get_task
from rftf_torchrl.envs.episodes import Split, check_split

States: TypeAlias = Callable[[str, int], tuple[np.ndarray, np.ndarray]]
"""From a task's name and an episode's seed to ``robot_obs`` [15] and ``scene_obs`` [24]."""


def default_states(split: Split, scene: Scene = "D") -> States:
    """Start an episode of a task where a chain can start with it.

    ``"test"`` draws one of the benchmark's initial scenes from which the task can be done;
    ``"train"`` draws one of their descriptions with the blocks at new places, so that the two never
    share a state.

    Args:
        split: ``"train"`` or ``"test"``.
        scene: letter of the scene; the benchmark's scenes are of scene D only.

    Returns:
        A function from (task, seed) to (robot_obs float64 [15], scene_obs float64 [24]). It raises
        ``ValueError`` for a task that no chain starts with, such as ``"stack_block"``.

    Raises:
        ValueError: for an unknown split or scene, or the test split of another scene than D.

    Example:
        >>> from rftf_torchrl import default_states
        >>> robot_obs, scene_obs = default_states("train")("close_drawer", 7)
        >>> scene_obs[1].item()
        0.22
    """
    check_scene(scene)
    check_split(split)
    if split == "test" and scene != "D":
        raise ValueError(
            f"the benchmark's initial scenes are right for scene D only, not for {scene}: give "
            "states=, or use split='train'"
        )

    def draw(task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        conditions = starting_states(task)
        if not conditions:
            raise ValueError(
                f"no chain starts with {task!r}, as it needs a block in the hand, on another one "
                "or in the drawer: give states=, a StateBank, which has states from the middle of "
                "chains"
            )
        rng = np.random.default_rng([get_task(task).id, seed])
        condition = conditions[rng.integers(len(conditions))]
        if split == "test":
            return initial_scene(condition)
        return training_scene(condition, int(rng.integers(2**31)), scene)

    return draw
