"""Warnings of instructions that a value model was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import keys
from rftf_torchrl.values.temporal_value import TemporalValueModel

logger = logging.getLogger(__name__)


def warn_of(instructions: Iterable[str]) -> None:
    """Say which instructions a value model is not calibrated for."""
    logger.warning(
        "the value model is not calibrated for %s, on which it may not have been trained: its "
        "values need not run from 0 to 1, and may say nothing",
        ", ".join(instructions),
    )


def warn_if_unknown(
    value_model: TensorDictModuleBase, data: TensorDictBase, task_names: Mapping[int, str]
) -> None:
    """Log a warning if there are tasks for whose instructions a value model is not calibrated."""
    if not isinstance(value_model, TemporalValueModel):
        return
    tokens = data.get(value_model.tokens_key, None)
    if tokens is None:
        return
    unknown = data[keys.TASK_ID].reshape(-1)[~value_model.calibration.knows(tokens)].unique()
    if len(unknown):
        warn_of(f"an instruction of {task_names[number]}" for number in unknown.tolist())
