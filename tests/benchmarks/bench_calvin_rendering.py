"""Seconds per control step of CALVIN with images: drawn once per chunk against drawn every step."""

from __future__ import annotations

import argparse
import time

import numpy as np

from rftf_torchrl import CalvinSimulator, default_states

MODES = {
    "no pictures": 0,
    "static and gripper camera after every step": 1,
    "static and gripper camera after every chunk": None,
}


def seconds_per_step(simulator: CalvinSimulator, every: int, steps: int, size: int, wrist: int):
    """CPU-seconds a control step, drawing after every ``every``-th; 0 for never."""
    simulator.reset(*default_states("train")("open_drawer", 0))
    action = np.array([0.1, 0, 0.1, 0, 0, 0, 1.0])
    begin = time.process_time()
    for step in range(1, steps + 1):
        simulator.step(action * [*[1 if step % 16 < 8 else -1] * 6, 1])
        if every and step % every == 0:
            simulator.picture(size)
            simulator.wrist_picture(wrist)
    return (time.process_time() - begin) / steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--wrist", type=int, default=84)
    given = parser.parse_args()
    simulator = CalvinSimulator("D")
    seconds = {
        name: seconds_per_step(
            simulator, given.chunk if every is None else every, given.steps, given.size, given.wrist
        )
        for name, every in MODES.items()
    }
    slowest = max(seconds.values())
    print(
        f"chunk of {given.chunk}, images of {given.size} and {given.wrist} pixels\n\n"
        "| images | CPU-ms per control step | times faster |\n|---|---|---|"
    )
    for name, value in seconds.items():
        print(f"| {name} | {1000 * value:.1f} | {slowest / value:.1f} |")
    simulator.close()
