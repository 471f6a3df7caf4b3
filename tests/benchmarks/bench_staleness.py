"""What ``ppo.overlap=true`` costs in learning, on a line of one dimension: a toy of CPU-seconds.

    python tests/benchmarks/bench_staleness.py

A policy of random weights has to learn to go right. Five seeds, paired. Prints success over training
and in its last quarter, of training episodes with sampled actions.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch
from _composed import composed

from rftf_torchrl import check_config, paired_difference, read_metrics, save_policy
from rftf_torchrl.configs.policies import new_policy
from rftf_torchrl.recipes.finetune import finetune

SETTINGS = [
    "env=gym",
    "env.tasks=[line]",
    "env.options.env_ids={hill: MountainCarContinuous-v0, line: 'tiny_gym:Line-v0'}",
    "env.options.instructions={hill: up, line: go right}",
    "env.options.success=success",
    "env.chunk_size=3",
    "env.horizon=8",
    "reward=sparse",
    "ppo.iterations=30",
    "ppo.critic_warmup=0",
    "ppo.episodes_per_task=24",
    "ppo.minibatch=64",
    "ppo.checkpoint_every=1000",
    "collector.workers=1",
    "logger=none",
    "device=cpu",
]


def success(folder: Path, seed: int, rate: float, overlap: bool) -> list[float]:
    words = [f"seed={seed}", f"output={folder}", f"ppo.learning_rate={rate:g}"]
    config = check_config(composed(*SETTINGS, *words, f"ppo.overlap={overlap}"))
    torch.manual_seed(seed)
    policy, spec = new_policy(config, state_dim=1, action_dim=1)
    folder.mkdir()
    config.policy.path = str(folder / "start.safetensors")
    save_policy(policy, spec, folder / "start.safetensors")
    finetune(config)
    return [float(row["success"]) for row in read_metrics(config.tuned.metrics)]


def study(seeds: list[int], rate: float) -> None:
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for overlap, runs in found.items():
                runs.append(success(Path(folder, f"{seed}{overlap}"), seed, rate, overlap))
                print(f"seed {seed}, overlap {overlap}: {[round(s, 2) for s in runs[-1]]}")
    quarter = len(found[True][0]) // 4
    for name, part in (("over training", slice(None)), ("last quarter", slice(-quarter, None))):
        alone, beside = (
            torch.tensor([fmean(run[part]) for run in found[overlap]]) for overlap in (False, True)
        )
        print(f"learning rate {rate:g}, {name}: {alone.mean():.3f} and {beside.mean():.3f} with")
        print(f"overlap, {paired_difference(beside, alone)}", flush=True)


if __name__ == "__main__":
    seeds = [int(word) for word in sys.argv[2:]] or [0, 1, 2, 3, 4]
    study(seeds, float(sys.argv[1]) if len(sys.argv) > 1 else 1e-3)
