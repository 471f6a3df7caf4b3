"""Sizes of GR-MG."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig
from rftf_torchrl.paper_policies.blocks.vit import ViTConfig


@dataclass(frozen=True)
class GRMGConfig:
    """Sizes of a :class:`GRMG`; the defaults are those of the released policy.

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
        act_dim: features inside the action encoder and decoder.
        act_depth: blocks of the action encoder, and of the decoder.
        act_heads: attention heads of both, and of the progress decoder.
        style_dim: features of the style vector.
        progress_dim: features inside the progress decoder.
        progress_depth: blocks of the progress decoder.
        image_depth: blocks of the image decoder.
        image_heads: attention heads of the image decoder.

    Raises:
        ValueError: if a number of heads does not divide its features.

    Example:
        >>> GRMGConfig.from_dict(GRMGConfig().to_dict()) == GRMGConfig()
        True
    """

    image: ViTConfig = field(default_factory=ViTConfig)
    text: ClipTextConfig = field(default_factory=ClipTextConfig)
    hidden: int = 384
    layers: int = 12
    heads: int = 12
    history: int = 10
    act_len: int = 5
    arm_dim: int = 6
    resampler_latents: int = 9
    resampler_depth: int = 3
    resampler_heads: int = 4
    resampler_head_dim: int = 128
    act_dim: int = 128
    act_depth: int = 4
    act_heads: int = 8
    style_dim: int = 32
    progress_dim: int = 128
    progress_depth: int = 2
    image_depth: int = 2
    image_heads: int = 16

    def __post_init__(self) -> None:
        for features, heads in (
            ("hidden", "heads"),
            ("hidden", "image_heads"),
            ("act_dim", "act_heads"),
            ("progress_dim", "act_heads"),
        ):
            if getattr(self, features) % getattr(self, heads):
                raise ValueError(
                    f"{heads}={getattr(self, heads)} must divide "
                    f"{features}={getattr(self, features)}."
                )

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> GRMGConfig:
        """The config that :meth:`to_dict` described; what is left out has its default."""
        nested = {
            "image": ViTConfig(**config.get("image", {})),
            "text": ClipTextConfig(**config.get("text", {})),
        }
        return cls(**{**config, **nested})
