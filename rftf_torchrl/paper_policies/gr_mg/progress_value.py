"""GR-MG's progress head as a value model."""

from __future__ import annotations

import copy

from torch import nn

from rftf_torchrl.paper_policies.blocks.find import only_module
from rftf_torchrl.paper_policies.blocks.inputs import CLIP_TOKENS
from rftf_torchrl.paper_policies.gr_mg.actor import GRMGProgress
from rftf_torchrl.paper_policies.gr_mg.network import GRMG
from rftf_torchrl.paper_policies.gr_mg.spec import GRMGSpec
from rftf_torchrl.values.temporal_value import TemporalValueModel


def gr_mg_value_model(policy: nn.Module, spec: GRMGSpec) -> TemporalValueModel:
    """Makes a value model of the progress that a GR-MG predicts.

    It reads what the policy reads, writes ``"temporal_value"`` float32 [*B, 1], and can be
    calibrated like any other. The network is copied, so that fine-tuning the policy leaves it
    alone, and frozen.

    Args:
        policy: a policy built from the spec, or its :class:`GRMG`.
        spec: what the policy was built from.

    Returns:
        The value model.
    """
    network = copy.deepcopy(only_module(policy, GRMG)).requires_grad_(False)
    reader = GRMGProgress(network).eval()
    return TemporalValueModel(reader, in_keys=spec.in_keys, tokens_key=CLIP_TOKENS)
