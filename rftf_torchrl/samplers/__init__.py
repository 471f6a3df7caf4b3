"""Replay-buffer samplers."""

from __future__ import annotations

from rftf_torchrl.samplers.balanced import BalancedTrajectorySampler

__all__ = ["BalancedTrajectorySampler"]
