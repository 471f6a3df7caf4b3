"""Sizes of GR-MG."""

from __future__ import annotations

from dataclasses import dataclass

from rftf_torchrl.paper_policies.blocks.config import NetworkConfig
from rftf_torchrl.settings import Count


@dataclass(frozen=True)
class GRMGConfig(NetworkConfig):
    """Sizes of a :class:`GRMG`; the defaults are those of the released policy.

    Attributes:
        act_dim: features inside the action encoder and decoder.
        act_depth: blocks of the action encoder, and of the decoder.
        act_heads: attention heads of both, and of the progress decoder.
        style_dim: features of the style vector.
        progress_dim: features inside the progress decoder.
        progress_depth: blocks of the progress decoder.

    The others are those of :class:`NetworkConfig`.

    Raises:
        ValueError: if a number of heads does not divide its features.

    Example:
        >>> GRMGConfig.from_dict(GRMGConfig().to_dict()) == GRMGConfig()
        True
    """

    act_dim: Count = 128
    act_depth: Count = 4
    act_heads: Count = 8
    style_dim: Count = 32
    progress_dim: Count = 128
    progress_depth: Count = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_heads("act_dim", "act_heads")
        self._check_heads("progress_dim", "act_heads")
