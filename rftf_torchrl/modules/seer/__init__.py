"""Seer, one of the two policies that RFTF fine-tuned, from its authors' checkpoints."""

from __future__ import annotations

from rftf_torchrl.modules.seer.checkpoint import load_seer_checkpoint
from rftf_torchrl.modules.seer.config import SeerConfig
from rftf_torchrl.modules.seer.network import Seer, SeerOutput
from rftf_torchrl.modules.seer.spec import SeerSpec

__all__ = ["Seer", "SeerConfig", "SeerOutput", "SeerSpec", "load_seer_checkpoint"]
