"""Policies on vision-language models of ``transformers``.

Importing this package does not import ``transformers``.
"""

from __future__ import annotations

from rftf_torchrl.modules.transformers_vla.autoregressive import (
    AutoregressiveActor,
    AutoregressiveVLA,
    DrawnCategorical,
)
from rftf_torchrl.modules.transformers_vla.backbone import (
    build_backbone,
    load_backbone,
    load_config,
)
from rftf_torchrl.modules.transformers_vla.heads import ActionTokenHead, ChunkHead
from rftf_torchrl.modules.transformers_vla.processor import VLAProcessor
from rftf_torchrl.modules.transformers_vla.query_network import QueryNetwork
from rftf_torchrl.modules.transformers_vla.spec import TransformersPolicySpec, action_token_ids
from rftf_torchrl.modules.transformers_vla.tiny import save_tiny_vlm
from rftf_torchrl.modules.transformers_vla.vla import QueryFeatures, TransformersVLA
from rftf_torchrl.modules.transformers_vla.vla_inputs import VLAInputs

__all__ = [
    "ActionTokenHead",
    "AutoregressiveActor",
    "AutoregressiveVLA",
    "ChunkHead",
    "DrawnCategorical",
    "QueryFeatures",
    "QueryNetwork",
    "TransformersPolicySpec",
    "TransformersVLA",
    "VLAInputs",
    "VLAProcessor",
    "action_token_ids",
    "build_backbone",
    "load_backbone",
    "load_config",
    "save_tiny_vlm",
]
