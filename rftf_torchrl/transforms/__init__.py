"""Transforms for environments, collectors and replay buffers, and whole-batch labelling."""

from __future__ import annotations

from rftf_torchrl.modules.transformers_vla.vla_inputs import VLAInputs
from rftf_torchrl.transforms.executed import mark_executed
from rftf_torchrl.transforms.finite import FiniteCheck, check_finite
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer, InstructionTokens
from rftf_torchrl.transforms.outcome import label_outcomes
from rftf_torchrl.transforms.value_reward import ValueReward

__all__ = [
    "FiniteCheck",
    "HashTokenizer",
    "InstructionTokens",
    "VLAInputs",
    "ValueReward",
    "check_finite",
    "label_outcomes",
    "mark_executed",
]
