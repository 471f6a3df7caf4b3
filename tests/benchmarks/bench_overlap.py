"""An iteration of fine-tuning with ``ppo.overlap=true`` against one without.

    python tests/benchmarks/bench_overlap.py

Simulators and learner only sleep, about equally long, so that two cores suffice: at best an
iteration takes half of the time. The two kinds of run take turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch
from _composed import composed

from rftf_torchrl import PhaseClock, check_config, save_policy
from rftf_torchrl.configs.policies import new_policy
from rftf_torchrl.recipes import finetune as recipe

PARTS = ("collect", "rewards and values", "update")
STEP, UPDATE, ITERATIONS = 0.05, 3.0, 6
SETTINGS = [
    "env=gym",
    "env.tasks=[line]",
    "env.options.env_ids={hill: MountainCarContinuous-v0, line: 'tiny_gym:Line-v0'}",
    "env.options.instructions={hill: up, line: go right}",
    "env.options.make=sleeping:sleeping_gym",
    f"env.options.arguments={{seconds: {STEP}}}",
    "env.chunk_size=5",
    "env.horizon=8",
    "reward=sparse",
    f"ppo.iterations={ITERATIONS}",
    "ppo.critic_warmup=0",
    "ppo.episodes_per_task=8",
    "ppo.epochs=1",
    "ppo.checkpoint_every=100",
    "collector.workers=4",
    "logger=none",
    "device=cpu",
]
update = recipe.update


def sleeping_update(*arguments: Any, **options: Any) -> dict[str, float]:
    time.sleep(UPDATE)
    return update(*arguments, **options)


def run(folder: Path, overlap: bool) -> dict[str, float]:
    """Seconds of an iteration by part, without the first, in which the processes start."""
    words = [f"output={folder}", f"policy.path={folder.parent / 'policy.safetensors'}"]
    config = check_config(composed(*SETTINGS, *words, f"ppo.overlap={overlap}"))
    clock, first = PhaseClock(), dict[str, float]()

    def note(iteration: int, *_: object) -> None:
        if iteration == 1:
            first.update(clock.seconds)

    with patch.object(recipe, "update", sleeping_update):
        recipe.finetune(config, clock, on_iteration=note)
    names = {part: f"{config.name}: {part}" for part in PARTS}
    return {
        part: (clock.seconds[name] - first[name]) / (ITERATIONS - 1) for part, name in names.items()
    }


if __name__ == "__main__":
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        policy, spec = new_policy(check_config(composed(*SETTINGS)), state_dim=1, action_dim=1)
        save_policy(policy, spec, Path(folder, "policy.safetensors"))
        for number in range(3):
            alone, beside = (run(Path(folder, f"{number}{o}"), o) for o in (False, True))
            ratios.append(sum(beside.values()) / sum(alone.values()))
            learner = alone["update"] + alone["rewards and values"]
            best = max(alone["collect"], learner) / sum(alone.values())
            print(
                f"collection {alone['collect']:.2f} s, learner {learner:.2f} s; with overlap "
                f"{sum(beside.values()):.2f} s; ratio {ratios[-1]:.2f}, at best {best:.2f}",
                flush=True,
            )
    print(f"median ratio {median(ratios):.2f}")
