"""Data in CALVIN's format without the simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rftf_torchrl.calvin.data.format import absolute_action
from rftf_torchrl.calvin.data.writer import CalvinWriter
from rftf_torchrl.calvin.settings import Scene


def write_synthetic_calvin(
    root: str | Path,
    split: str = "training",
    *,
    episodes: int = 1,
    length: int = 36,
    image_size: int | None = 10,
    scene: Scene = "D",
    seed: int = 0,
) -> Path:
    """Write episodes of two halves, and return ``root``.

    A robot drifts and images brighten. The first half is annotated ``open_drawer``, the second
    ``turn_on_led``; nothing of the kind happens.
    """
    random = np.random.default_rng(seed)
    with CalvinWriter(root, split, scene=scene) as writer:
        for _ in range(episodes):
            robots = random.uniform(-0.1, 0.1, (length, 15)).cumsum(0) / 10
            robots[:, 14] = 1
            scenes = random.uniform(-0.2, 0.2, (length, 24))
            moves = random.uniform(-1, 1, (length, 7))
            moves[:, 6] = 1
            numbers = []
            for step, (robot, state) in enumerate(zip(robots, scenes, strict=True)):
                last = step == length - 1
                picture = None
                if image_size is not None:
                    brightness = round(255 * step / (length - 1))
                    picture = np.full((3, image_size, image_size), brightness, dtype=np.uint8)
                number = writer.add_frame(
                    robot,
                    state,
                    None if last else moves[step],
                    None if last else absolute_action(robots[step + 1]),
                    rgb_static=picture,
                    rgb_gripper=picture,
                )
                numbers.append(number)
            middle = numbers[length // 2]
            writer.annotate(numbers[0], middle, "open_drawer", "pull the drawer open")
            writer.annotate(middle, numbers[-1] + 1, "turn_on_led", "switch the green light on")
            writer.end_episode()
    return Path(root)
