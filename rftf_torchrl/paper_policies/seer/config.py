"""Sizes of Seer."""

from __future__ import annotations

from dataclasses import dataclass

from rftf_torchrl.paper_policies.blocks.config import NetworkConfig
from rftf_torchrl.settings import Count


@dataclass(frozen=True)
class SeerConfig(NetworkConfig):
    """Sizes of a :class:`Seer`; the defaults are those of the smaller released policy.

    Attributes:
        foresight: queries per predicted image, a square number.

    The others are those of :class:`NetworkConfig`.

    Raises:
        ValueError: if a number of heads does not divide its features, or ``foresight`` is no
            square.

    Example:
        >>> SeerConfig.from_dict(SeerConfig.large().to_dict()) == SeerConfig.large()
        True
    """

    layers: Count = 24
    act_len: Count = 3
    resampler_latents: Count = 6
    resampler_heads: Count = 8
    resampler_head_dim: Count = 64
    foresight: Count = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if round(self.foresight**0.5) ** 2 != self.foresight:
            raise ValueError(f"foresight must be a square number, got {self.foresight}.")

    @classmethod
    def large(cls) -> SeerConfig:
        """Sizes of Seer-Large."""
        return cls(hidden=1024, heads=16, resampler_latents=16, foresight=16)
