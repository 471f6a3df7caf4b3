"""The processes that torchrun starts, as one run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.training.device import resolve_device
from rftf_torchrl.training.processes import Processes
from rftf_torchrl.training.pulse import LostProcessError, Pulse
from rftf_torchrl.training.run_log import run_log

COMMAND = "torchrun --nproc-per-node=2 -m rftf_torchrl.recipes.finetune ppo.parallel=ddp ..."
LONGEST_COLLECTION = timedelta(days=30)
"""Nobody waits so long: whether the others live is seen by their pulse."""


@contextmanager
def joined(config: RunConfig) -> Iterator[Processes]:
    """Make the processes that torchrun has started one group, each on its own GPU where it has one.

    Raises:
        ConfigError: where the settings and the number of processes do not fit together.
    """
    world = int(os.environ.get("WORLD_SIZE", "0"))
    check_processes(config, world)
    if not world:
        yield Processes()
        return
    backend = _own_device(config)
    store, rank, world = next(dist.rendezvous("env://"))
    store = dist.PrefixStore("rftf", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    patient = dist.new_group(backend="gloo", timeout=LONGEST_COLLECTION)
    processes = Processes.here(patient)
    try:
        with Pulse(store.clone(), processes, config.ppo.timeout):
            yield processes
    except LostProcessError:
        with run_log(Path(config.output)):  # the run's own is closed
            raise
    dist.destroy_process_group()


def check_processes(config: RunConfig, world: int) -> None:
    """Stop where the settings do not fit so many processes; 0 where torchrun has started none."""
    parallel, minibatch = config.ppo.parallel, config.ppo.minibatch
    if parallel != "none" and not world:
        raise ConfigError(
            f"ppo.parallel={parallel} is for several processes, and this is one: start them by\n"
            f"    {COMMAND}\nor leave the setting out"
        )
    if parallel == "none" and world > 1:
        raise ConfigError(
            f"torchrun has started {world} processes, and ppo.parallel=none: give ppo.parallel=ddp "
            "or ppo.parallel=fsdp, or start one process"
        )
    if minibatch < world:
        raise ConfigError(
            f"ppo.minibatch={minibatch}: each of the {world} processes computes a part of every "
            "minibatch, so it must be at least as many decisions"
        )


def _own_device(config: RunConfig) -> str:
    """Choose this process's GPU, and the backend that its tensors need."""
    device = resolve_device(config.device)
    if device.type == "cpu":
        return "gloo"
    local, there = dist.get_node_local_rank(), torch.cuda.device_count()
    if device.type != "cuda" or device.index is not None:
        raise ConfigError(
            f"device={config.device}: of several processes each takes a GPU of its own: give "
            "device=cuda, or device=cpu"
        )
    if local >= there:
        raise ConfigError(
            f"torchrun has started more processes on this machine than its {there} GPUs: give "
            f"--nproc-per-node={there}, or device=cpu"
        )
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"
