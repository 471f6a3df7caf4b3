"""The sizes that GR-MG and Seer share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig
from rftf_torchrl.paper_policies.blocks.vit import ViTConfig
from rftf_torchrl.settings import Count

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the parts that both networks have.

    Attributes:
        image: the image encoder.
        text: the text tower.
        hidden: features of a token.
        layers: blocks of the transformer.
        heads: attention heads of the transformer.
        history: number of observations that the policy reads, the present one included.
        act_len: actions that it predicts.
        arm_dim: size of the arm's action and of its state: 3 for a position, 6 with Euler angles.
        resampler_latents: tokens per image.
        resampler_depth: layers of the resampler.
        resampler_heads: attention heads of the resampler.
        resampler_head_dim: features of a head of the resampler.
        image_depth: blocks of the image decoder.
        image_heads: attention heads of the image decoder.

    Raises:
        ValueError: if a number of heads does not divide its features, or ``arm_dim`` is another.
    """

    image: ViTConfig = field(default_factory=ViTConfig)
    text: ClipTextConfig = field(default_factory=ClipTextConfig)
    hidden: Count = 384
    layers: Count = 12
    heads: Count = 12
    history: Count = 10
    act_len: Count = 5
    arm_dim: Count = 6
    resampler_latents: Count = 9
    resampler_depth: Count = 3
    resampler_heads: Count = 4
    resampler_head_dim: Count = 128
    image_depth: Count = 2
    image_heads: Count = 16

    def __post_init__(self) -> None:
        self._check_heads("hidden", "heads")
        self._check_heads("hidden", "image_heads")
        if self.arm_dim not in (3, 6):
            raise ValueError(
                "arm_dim must be 3 (the arm's position) or 6 (and its Euler angles), got "
                f"{self.arm_dim}."
            )

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """The config that :meth:`to_dict` described; what is left out has its default."""
        nested = {
            "image": ViTConfig(**config.get("image", {})),
            "text": ClipTextConfig(**config.get("text", {})),
        }
        return cls(**{**config, **nested})

    def _check_heads(self, features: str, heads: str) -> None:
        if getattr(self, features) % getattr(self, heads):
            raise ValueError(
                f"{heads}={getattr(self, heads)} must divide {features}={getattr(self, features)}."
            )
