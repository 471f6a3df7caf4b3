"""A fine-tuning of seconds on a line, by one process or by several that torchrun starts.

python several.py CASES runs the cases of a JSON file, lists of overrides, one after another.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from _composed import composed
from safetensors.torch import load_file
from tensordict.nn import TensorDictModule
from tiny import RECIPES
from torch import nn

from rftf_torchrl import check_config, gaussian_actor, keys, save_policy
from rftf_torchrl.configs.joined import joined

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


class Layers(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.inner = nn.Linear(1, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.outer = nn.Linear(width, 2)
        with torch.no_grad():  # goes right and left
            self.outer.weight.mul_(0.1)
            self.outer.bias.zero_()

    def forward(self, state):
        hidden = self.inner(state)
        for layer in self.layers:
            hidden = hidden + layer(hidden).tanh()
        return self.outer(hidden).unflatten(-1, (2, 1))


@dataclass(frozen=True)
class LayersSpec:
    """A policy with a list of layers, as large ones have; `scalar` adds what cannot be sharded."""

    kind: ClassVar[str] = "several:LayersSpec"

    state_dim: int = 1
    scalar: bool = False

    def build(self):
        network = Layers()
        if self.scalar:
            network.temperature = nn.Parameter(torch.ones(()))
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


def begin(file, **options):
    """Save a policy to start from."""
    torch.manual_seed(0)
    spec = LayersSpec(**options)
    save_policy(spec.build(), spec, file)
    return file


def settings(policy, output, *overrides):
    return [*SETTINGS, f"policy.path={policy}", f"output={output}", *overrides]


def torchrun(processes, *arguments):
    """A command; without processes, of the script alone."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    start += [f"--nproc-per-node={processes}"]
    return [*(start if processes else [sys.executable]), *map(str, arguments)]


def environment():
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run(processes, *arguments):
    """Run a script to its end."""
    return subprocess.run(
        torchrun(processes, *arguments),
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )


def finetune(processes, *given):
    """Run the recipe to its end, see `settings`."""
    return run(processes, RECIPES / "finetune.py", *settings(*given))


def run_cases(cases):
    """Run the recipe's function several times in the processes that torchrun has started."""
    from rftf_torchrl.recipes.finetune import finetune

    configs = [check_config(composed(*case)) for case in cases]
    torch.set_num_threads(1)
    with joined(configs[0]) as processes:
        for config in configs:
            finetune(config, processes=processes)


def weights(output):
    return load_file(Path(output, "sparse", "policy.safetensors"))


def largest_difference(one, other):
    """Of two runs' weights."""
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


if __name__ == "__main__":
    run_cases(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
