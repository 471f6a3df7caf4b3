"""Sizes of Seer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig
from rftf_torchrl.paper_policies.blocks.vit import ViTConfig


@dataclass(frozen=True)
class SeerConfig:
    """Sizes of a :class:`Seer`; the defaults are those of the smaller released policy.

    Attributes:
        image: the image encoder.
        text: the text tower.
        hidden: features of a token.
        layers: blocks of the transformer.
        heads: attention heads of the transformer.
        history: observations that the policy looks back on, the present one counted.
        act_len: actions that it predicts.
        arm_dim: size of the arm's action and of its state.
        resampler_latents: tokens per picture.
        resampler_depth: layers of the resampler.
        resampler_heads: attention heads of the resampler.
        resampler_head_dim: features of a head of the resampler.
        foresight: queries per predicted picture, a square number.
        image_depth: blocks of the image decoder.
        image_heads: attention heads of the image decoder.

    Raises:
        ValueError: if a number of heads does not divide its features, or ``foresight`` is no
            square.

    Example:
        >>> SeerConfig.from_dict(SeerConfig.large().to_dict()) == SeerConfig.large()
        True
    """

    image: ViTConfig = field(default_factory=ViTConfig)
    text: ClipTextConfig = field(default_factory=ClipTextConfig)
    hidden: int = 384
    layers: int = 24
    heads: int = 12
    history: int = 10
    act_len: int = 3
    arm_dim: int = 6
    resampler_latents: int = 6
    resampler_depth: int = 3
    resampler_heads: int = 8
    resampler_head_dim: int = 64
    foresight: int = 9
    image_depth: int = 2
    image_heads: int = 16

    def __post_init__(self) -> None:
        for heads in ("heads", "image_heads"):
            if self.hidden % getattr(self, heads):
                raise ValueError(
                    f"{heads}={getattr(self, heads)} must divide hidden={self.hidden}."
                )
        if round(self.foresight**0.5) ** 2 != self.foresight:
            raise ValueError(f"foresight must be a square number, got {self.foresight}.")

    @classmethod
    def large(cls) -> SeerConfig:
        """Sizes of Seer-Large."""
        return cls(hidden=1024, heads=16, resampler_latents=16, foresight=16)

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> SeerConfig:
        """The config that :meth:`to_dict` described; what is left out has its default."""
        nested = {
            "image": ViTConfig(**config.get("image", {})),
            "text": ClipTextConfig(**config.get("text", {})),
        }
        return cls(**{**config, **nested})
