"""A fine-tuning of seconds on a line, by one process or by several that torchrun starts."""

import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import gaussian_actor, keys, save_policy

HELPERS = Path(__file__).parent
SETTINGS = [
    "env=gym",
    "env.tasks=[line]",
    "env.options.env_ids={line: 'tiny_gym:Line-v0'}",
    "env.options.instructions={line: go right}",
    "env.options.success=success",
    "env.chunk_size=2",
    "env.horizon=6",
    "reward=sparse",
    "policy.kind=several:LayersSpec",
    "ppo.iterations=2",
    "ppo.critic_warmup=1",
    "ppo.episodes_per_task=9",
    "ppo.minibatch=15",
    "ppo.epochs=2",
    "ppo.learning_rate=1e-3",
    "ppo.checkpoint_every=1",
    "collector.workers=0",
    "logger=csv",
    "device=cpu",
    "threads=1",
]


@dataclass(frozen=True)
class LayersSpec:
    """A policy of two layers."""

    kind: ClassVar[str] = "several:LayersSpec"

    state_dim: int = 1

    def build(self):
        layers = {
            "inner": nn.Linear(1, 8),
            "tanh": nn.Tanh(),
            "outer": nn.Linear(8, 2),
            "chunk": nn.Unflatten(-1, (2, 1)),
        }
        network = nn.Sequential(OrderedDict(layers))
        return gaussian_actor(
            TensorDictModule(network, [keys.STATE], [keys.LOC]), chunk_size=2, action_dim=1
        )

    def to_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, spec):
        return cls(**spec)

    def observation_transform(self):
        return None


def begin(file):
    """Save a policy to start from."""
    torch.manual_seed(0)
    spec = LayersSpec()
    save_policy(spec.build(), spec, file)
    return file


def command(processes, *overrides, recipe="finetune"):
    """Of the recipe, by torchrun where there are processes to start."""
    start = [sys.executable]
    if processes:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, "-m", f"rftf_torchrl.recipes.{recipe}", *SETTINGS, *overrides]


def environment():
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run(processes, *overrides, recipe="finetune"):
    """Run the recipe to its end."""
    return subprocess.run(
        command(processes, *overrides, recipe=recipe),
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )


def weights(output):
    return load_file(Path(output, "sparse", "policy.safetensors"))


def largest_difference(one, other):
    """Of two runs' weights."""
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    return torch.stack([(one[name] - other[name]).abs().max() for name in one]).max().item()
