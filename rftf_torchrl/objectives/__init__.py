"""Losses."""

from __future__ import annotations

from rftf_torchrl.objectives.arm_gripper_cloning import ArmGripperCloningLoss
from rftf_torchrl.objectives.flow_matching import FlowMatchingLoss
from rftf_torchrl.objectives.gae import drop_crashed, make_gae
from rftf_torchrl.objectives.group_advantage import group_advantage
from rftf_torchrl.objectives.ppo import RFTFPPOLoss
from rftf_torchrl.objectives.ranking import TemporalRankingLoss

__all__ = [
    "ArmGripperCloningLoss",
    "FlowMatchingLoss",
    "RFTFPPOLoss",
    "TemporalRankingLoss",
    "drop_crashed",
    "group_advantage",
    "make_gae",
]
