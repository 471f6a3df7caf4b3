"""Seconds per control step of LIBERO: its own images at every step, ours once per chunk.

Four ways to play the same actions with both cameras, one simulator at a time, in CPU-seconds:
LIBERO's own environment, which draws at every step, and ours, which draws after every chunk. The
images of the ``exact`` way are compared with LIBERO's own at those steps. And what it costs to
change the task.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from rftf_torchrl import LiberoEnv, LiberoSimulator, libero_tasks

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from direct_libero import TASKS, actions, direct_env, direct_start

CAMERAS = ("agentview", "robot0_eye_in_hand")


def own(suite: str, steps: int, size: int, chunk: int) -> tuple[float, list[np.ndarray]]:
    """LIBERO's own environment: CPU-seconds a step, and the images after each chunk."""
    env = direct_env(suite, TASKS[suite], size)
    direct_start(env, 6)
    seen = []
    begin = time.process_time()
    for number, action in enumerate(actions(steps), start=1):
        observed, *_ = env.step(action)
        if number % chunk == 0:
            seen.append(np.stack([observed[f"{name}_image"][::-1, ::-1] for name in CAMERAS]))
    seconds = (time.process_time() - begin) / steps
    env.close()
    return seconds, [picture.transpose(0, 3, 1, 2) for picture in seen]


def ours(suite: str, steps: int, size: int, chunk: int, way: str) -> tuple[float, list[np.ndarray]]:
    """Our simulator with images after each chunk; none for the way ``"state"``."""
    drawn = way != "state"
    simulator = LiberoSimulator(
        suite, TASKS[suite], pictures=way if drawn else "exact", render=drawn
    )
    simulator.reset(6)
    if drawn:
        simulator.picture(size)
    seen = []
    begin = time.process_time()
    for number, action in enumerate(actions(steps), start=1):
        simulator.step(action)
        if drawn and number % chunk == 0:
            seen.append(np.stack([simulator.picture(size, name) for name in CAMERAS]))
    seconds = (time.process_time() - begin) / steps
    simulator.close()
    return seconds, seen


def swap(suite: str, size: int) -> float:
    """CPU-seconds from the end of one task's episode to the first image of another's."""
    env = LiberoEnv(TASKS[suite], suite=suite, image_size=size, wrist=True, pictures="fast")
    env.reset()
    env.set_task(next(name for name in libero_tasks(suite) if name != TASKS[suite]))
    begin = time.process_time()
    env.reset()
    seconds = time.process_time() - begin
    env.close()
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="libero_spatial", choices=sorted(TASKS))
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    play = (given.suite, given.steps, given.size, given.chunk)
    stock, pictures = own(*play)
    print(f"{given.suite}, two cameras of {given.size} pixels, chunks of {given.chunk}\n")
    print("| images | CPU-ms per control step | times faster |\n|---|---|---|")
    print(f"| LIBERO's own, every step | {1000 * stock:.1f} | 1.0 |")
    for way in ("exact", "plain", "fast", "state"):
        seconds, seen = ours(*play, way)
        about = "none" if way == "state" else f"{way}, every chunk"
        print(f"| {about} | {1000 * seconds:.1f} | {stock / seconds:.1f} |")
        if way == "exact":
            same = all(np.array_equal(a, b) for a, b in zip(seen, pictures, strict=True))
            print(f"exact images equal LIBERO's own: {same}", file=sys.stderr)
    print(f"\nanother task: {swap(given.suite, given.size):.1f} CPU-s")
