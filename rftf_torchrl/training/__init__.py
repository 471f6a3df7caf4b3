"""What a training script needs around its loop: seeds, guards, checkpoints, logs."""

from __future__ import annotations

from rftf_torchrl.training.checkpoint import RunCheckpoints
from rftf_torchrl.training.device import autocast, resolve_device
from rftf_torchrl.training.guards import clip_and_check_gradients, stop_on_non_finite_loss
from rftf_torchrl.training.logger import RunLogger, make_logger
from rftf_torchrl.training.memory import PeakMemory
from rftf_torchrl.training.metrics_file import MetricsFile
from rftf_torchrl.training.outputs import prepare_output, write_json_atomic
from rftf_torchrl.training.progress import PhaseClock, progress_bar
from rftf_torchrl.training.seeding import derive_seed, seed_everything

__all__ = [
    "MetricsFile",
    "PeakMemory",
    "PhaseClock",
    "RunCheckpoints",
    "RunLogger",
    "autocast",
    "clip_and_check_gradients",
    "derive_seed",
    "make_logger",
    "prepare_output",
    "progress_bar",
    "resolve_device",
    "seed_everything",
    "stop_on_non_finite_loss",
    "write_json_atomic",
]
