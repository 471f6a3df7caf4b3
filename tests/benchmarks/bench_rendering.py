"""Images per CPU-second at 64 pixels: MuJoCo's stock renderer against ours."""

from __future__ import annotations

import time

from rftf_torchrl import FastRenderer
from rftf_torchrl.metaworld.simulator import CAMERA, MetaWorldSimulator
from rftf_torchrl.metaworld.tasks import get_task

SETTINGS = {
    "stock": {"cell": 0.0, "effects": True},
    "no multisampling, shadows, reflections, sky": {"cell": 0.0},
    "and meshes in cells of 1 cm": {"cell": 0.01},
    "and meshes in cells of 2 cm": {"cell": 0.02},
}


def pictures_per_second(simulator: MetaWorldSimulator, seconds: float = 1.0, **arguments) -> float:
    renderer = FastRenderer(simulator.model, 64, CAMERA, flip=True, **arguments)
    renderer.render(simulator.data)
    begin, count = time.process_time(), 0
    while (spent := time.process_time() - begin) < seconds:
        renderer.render(simulator.data)
        count += 1
    renderer.close()
    return count / spent


if __name__ == "__main__":
    simulator = MetaWorldSimulator(get_task("drawer-open"), "train")
    simulator.reset(0)
    rates = {name: pictures_per_second(simulator, **kw) for name, kw in SETTINGS.items()}
    print("| renderer | images per CPU-second | ratio |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / rates['stock']:.1f} |")
    simulator.close()
