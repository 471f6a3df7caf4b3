"""What a training script needs around its loop: seeds, guards, checkpoints, logs."""

from __future__ import annotations

from rftf_torchrl.training.accumulation import accumulate_gradients
from rftf_torchrl.training.activations import checkpoint_activations
from rftf_torchrl.training.checkpoint import RunCheckpoints
from rftf_torchrl.training.compilation import compile_module
from rftf_torchrl.training.device import autocast, resolve_device
from rftf_torchrl.training.footprint import Footprint, PartFootprint, footprint
from rftf_torchrl.training.guards import clip_and_check_gradients, stop_on_non_finite_loss
from rftf_torchrl.training.logger import RunLogger, make_logger
from rftf_torchrl.training.memory import PeakMemory
from rftf_torchrl.training.metrics_file import MetricsFile
from rftf_torchrl.training.outputs import prepare_output, write_json_atomic
from rftf_torchrl.training.progress import PhaseClock, progress_bar
from rftf_torchrl.training.seeding import derive_seed, seed_everything

__all__ = [
    "Footprint",
    "MetricsFile",
    "PartFootprint",
    "PeakMemory",
    "PhaseClock",
    "RunCheckpoints",
    "RunLogger",
    "accumulate_gradients",
    "autocast",
    "checkpoint_activations",
    "clip_and_check_gradients",
    "compile_module",
    "derive_seed",
    "footprint",
    "make_logger",
    "prepare_output",
    "progress_bar",
    "resolve_device",
    "seed_everything",
    "stop_on_non_finite_loss",
    "write_json_atomic",
]
