"""The processes that torchrun starts: what the first one says to the others, and sums over all."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from rftf_torchrl.errors import UserError
from rftf_torchrl.training.device import resolve_device
from rftf_torchrl.training.signs_of_life import LOST, SignsOfLife

logger = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(days=30)
"""For the first process, while it plays episodes: where it is killed, the others notice at once."""


class LostProcessError(UserError):
    """Another process of the run has failed or was killed."""


def started_processes() -> int:
    """How many processes torchrun has started; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def is_first() -> bool:
    """Whether this is the process that plays, writes and prints."""
    return started_processes() == 1 or os.environ["RANK"] == "0"


@contextmanager
def joined(device: str, timeout: float) -> Iterator[None]:
    """Make the processes that torchrun has started one group, each on its own GPU where it has one.

    Args:
        device: of the run.
        timeout: seconds; the run ends where a process gives no sign of life for longer.

    Raises:
        UserError: where they cannot have a GPU each.
        LostProcessError: where another one has ended, or was silent.
    """
    if started_processes() == 1:
        yield
        return
    backend = _own_device(device)
    with SignsOfLife(timeout) as signs:
        try:
            dist.init_process_group(backend)
            yield
        except SystemExit:  # SIGTERM, which torchrun sends where another process has ended
            signs.say_what_happened()
            raise
        except LostProcessError as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends all: first the message
            raise LostProcessError(str(error).replace(LOST, signs.what_happened())) from error
    _patient.cache_clear()
    dist.destroy_process_group()


def first_says(message: Any = None) -> Any:
    """The first process's message, in all of them; the others' is not looked at.

    Args:
        message: anything that can be pickled, with tensors on the CPU.
    """
    if not dist.is_initialized():
        return message
    said = [message]
    with _naming_the_lost():
        dist.broadcast_object_list(said, src=0, group=_patient(), device=torch.device("cpu"))
    return said[0]


def reduce_in_place(
    tensor: Tensor, group: dist.ProcessGroup, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
) -> None:
    """Replace a tensor by its sum over the processes, or what else ``op`` says."""
    whole = tensor.contiguous()
    with _naming_the_lost():
        dist.all_reduce(whole, op, group=group)
    tensor.copy_(whole)


def full(tensor: Tensor) -> Tensor:
    """A tensor as it is, or all of one that FSDP has divided; then all processes call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@cache
def _patient() -> dist.ProcessGroup:
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    return group


@contextmanager
def _naming_the_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(f"{LOST} ({error})") from error


def _own_device(name: str) -> str:
    """Choose this process's GPU, and the backend that its tensors need."""
    device = resolve_device(name)
    if device.type == "cpu":
        return "gloo"
    here, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device.type != "cuda" or device.index is not None:
        raise UserError(
            f"device={name}: of several processes each takes a GPU of its own: give device=cuda, "
            "or device=cpu"
        )
    if here > there:
        raise UserError(
            f"torchrun has started {here} processes on this machine, which has {there} GPUs: give "
            f"--nproc-per-node={there}, or device=cpu"
        )
    torch.cuda.set_device(dist.get_node_local_rank())
    return "cpu:gloo,cuda:nccl"
