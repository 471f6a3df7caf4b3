"""GR-MG, one of the two policies that RFTF fine-tuned, from its authors' checkpoints."""

from __future__ import annotations

from rftf_torchrl.modules.gr_mg.checkpoint import load_gr_mg_checkpoint
from rftf_torchrl.modules.gr_mg.config import GRMGConfig
from rftf_torchrl.modules.gr_mg.network import GRMG, GRMGOutput

__all__ = ["GRMG", "GRMGConfig", "GRMGOutput", "load_gr_mg_checkpoint"]
