"""An iteration of RFTF, and one with ``ppo.overlap=true``, against a plain sparse one.

    python tests/benchmarks/bench_iteration.py outputs/quickstart/seed0

Needs the folder of a finished quick start. Target for RFTF: at most 1.10. The kinds take turns.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

RECIPES = Path(__file__).parents[2] / "recipes"
sys.path.insert(0, str(RECIPES))

PARTS = ("collect", "rewards and values", "update")


def seconds_per_iteration(
    source: Path, reward: str, *, overlap: bool = False, iterations: int = 6
) -> float:
    from hydra import compose, initialize_config_dir

    from rftf_torchrl import PhaseClock, check_config, register
    from rftf_torchrl.recipes.finetune import finetune

    register()
    clock = PhaseClock()
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"),
    ):
        overrides = [
            f"reward={reward}",
            f"ppo.overlap={overlap}",
            f"output={folder}",
            f"policy.path={source / 'bc' / 'policy.safetensors'}",
            f"value.path={source / 'value' / 'value.safetensors'}",
            f"ppo.iterations={iterations}",
            "logger=none",
        ]
        finetune(check_config(compose("quickstart", overrides=overrides)), clock)
    name = "rftf" if reward == "rftf" else "sparse"
    return sum(clock.seconds[f"{name}: {part}"] for part in PARTS) / (iterations + 1)


if __name__ == "__main__":
    source = Path(sys.argv[1]).absolute()
    ratios: dict[str, list[float]] = {"RFTF": [], "overlap": []}
    for _ in range(3):
        sparse = seconds_per_iteration(source, "sparse")
        taken = {
            "RFTF": seconds_per_iteration(source, "rftf"),
            "overlap": seconds_per_iteration(source, "sparse", overlap=True),
        }
        for kind, seconds in taken.items():
            ratios[kind].append(seconds / sparse)
            print(f"sparse {sparse:.2f} s, {kind} {seconds:.2f} s, ratio {ratios[kind][-1]:.2f}")
    for kind, found in ratios.items():
        print(f"{kind}: median ratio {median(found):.2f}")
