"""GR-MG, one of the two policies that RFTF fine-tuned, from its authors' checkpoints."""

from __future__ import annotations

from rftf_torchrl.modules.gr_mg.checkpoint import load_gr_mg_checkpoint
from rftf_torchrl.modules.gr_mg.config import GRMGConfig
from rftf_torchrl.modules.gr_mg.goal_images import GoalImages, LastFrames, current_frame
from rftf_torchrl.modules.gr_mg.network import GRMG
from rftf_torchrl.modules.gr_mg.progress_value import gr_mg_value_model
from rftf_torchrl.modules.gr_mg.spec import GRMGSpec
from rftf_torchrl.modules.gr_mg.tool_actions import ToolFrameActions

__all__ = [
    "GRMG",
    "GRMGConfig",
    "GRMGSpec",
    "GoalImages",
    "LastFrames",
    "ToolFrameActions",
    "current_frame",
    "gr_mg_value_model",
    "load_gr_mg_checkpoint",
]
