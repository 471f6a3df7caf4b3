"""What decides a value network on pretrained towers, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tensordict.utils import NestedKey

from rftf_torchrl import keys
from rftf_torchrl.optional import transformers_module

Training = Literal["frozen", "lora", "full"]
Fusion = Literal["cross_attention", "concatenation", "film"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_STATISTICS = {
    "siglip_vision_model": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip_vision_model": (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}


@dataclass(frozen=True)
class PretrainedEncoderConfig:
    """Sizes of a :class:`PretrainedNetwork`, enough to build it again from JSON without a download.

    :meth:`from_pretrained` fills it from the files of a checkpoint.

    Args:
        image: configuration of the image tower, as ``transformers`` writes it, with its
            ``"model_type"`` (``siglip_vision_model``, ``clip_vision_model``, ``dinov2``,
            ``vit_mae``, ``vit``, ...).
        text: configuration of the text tower (``clip_text_model``, ``siglip_text_model``,
            ``bert``, ...); None for the small
            :class:`TokenEncoder`, which is trained from scratch.
        image_source: folder or hub id of the image tower's weights; None for random ones.
        text_source: the same for the text tower.
        image_training: ``"frozen"``, ``"lora"`` (adapters by ``peft`` on every linear layer) or
            ``"full"``.
        text_training: the same for the text tower.
        lora_rank: rank of the adapters.
        image_size: edge in pixels to which images are resized.
        image_mean: mean of each colour in 0..1 that the tower was trained with.
        image_std: its standard deviation.
        resample: ``"bilinear"`` or ``"bicubic"``, of the resizing.
        grid: edge to which the grid of image patches is averaged, to keep fewer of them; None
            keeps all.
        fusion: how the language meets the image: ``"cross_attention"`` (text tokens attend to
            image patches), ``"concatenation"`` or ``"film"`` of their means.
        features: width of the fusion.
        layers: layers of the cross-attention.
        heads: heads of the cross-attention.
        vocab_size: token ids of the small text encoder.
        max_tokens: longest instruction of the small text encoder.

    Raises:
        ValueError: if a choice is unknown or the sizes do not fit.

    Examples:
        >>> config = PretrainedEncoderConfig(image={"model_type": "dinov2"}, features=64)
        >>> PretrainedEncoderConfig.from_dict(config.to_dict()) == config
        True
        >>> config.inputs
        ('image', 'tokens', 'mask')
    """

    image: dict[str, Any]
    text: dict[str, Any] | None = None
    image_source: str | None = None
    text_source: str | None = None
    image_training: Training = "frozen"
    text_training: Training = "frozen"
    lora_rank: int = 8
    image_size: int = 224
    image_mean: tuple[float, float, float] = _IMAGENET[0]
    image_std: tuple[float, float, float] = _IMAGENET[1]
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    grid: int | None = None
    fusion: Fusion = "cross_attention"
    features: int = 256
    layers: int = 2
    heads: int = 4
    vocab_size: int = 1024
    max_tokens: int = 32

    def __post_init__(self) -> None:
        for name, choices in (
            ("image_training", get_args(Training)),
            ("text_training", get_args(Training)),
            ("fusion", get_args(Fusion)),
            ("resample", ("bilinear", "bicubic")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}.")
        for name in ("image", "text"):
            tower = getattr(self, name)
            if tower is not None and "model_type" not in tower:
                raise ValueError(
                    f"{name} must be a configuration of transformers with its 'model_type', got "
                    f"the keys {sorted(tower)}."
                )
        if self.features % self.heads:
            raise ValueError(
                f"features must be a multiple of heads, got {self.features} and {self.heads}."
            )
        for name in ("image_mean", "image_std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def from_pretrained(
        cls, image: str, text: str | None = None, **choices: Any
    ) -> PretrainedEncoderConfig:
        """Reads the sizes, and the image's size, mean and standard deviation, of checkpoints.

        Of a checkpoint with two towers (SigLIP, CLIP) the one that is asked for is taken. Where
        the checkpoint says nothing about its images, they get the statistics of its family.

        Args:
            image: folder or hub id of the image tower.
            text: folder or hub id of the text tower; None for the small text encoder.
            choices: the other arguments of the config, which also override what was read.

        Returns:
            The config.

        Raises:
            ImportError: if ``transformers`` is missing.
            OSError: if there is no such checkpoint.
        """
        tower = _tower(image, "vision_config")
        found = {"image_size": tower.get("image_size", 224), **_pictures(image, tower)}
        words = None if text is None else _tower(text, "text_config")
        sources = {"image_source": str(image), "text_source": None if text is None else str(text)}
        return cls(**{"image": tower, "text": words, **sources, **found, **choices})

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order in which the network takes them."""
        return ("image", "tokens", "mask")

    @property
    def in_keys(self) -> list[NestedKey]:
        """Default TensorDict keys of the inputs, in the same order."""
        return [keys.IMAGE, keys.TOKENS, keys.TOKEN_MASK]

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> PretrainedEncoderConfig:
        """Builds the config from :meth:`to_dict`."""
        return cls(**config)


def _tower(source: str, part: str) -> dict[str, Any]:
    """The configuration of one tower of a checkpoint, as a JSON dict."""
    config = transformers_module().AutoConfig.from_pretrained(source, trust_remote_code=False)
    config = getattr(config, part, config)
    found = json.loads(config.to_json_string(use_diff=True))
    return {**found, "model_type": config.model_type}


def _pictures(source: str, tower: dict[str, Any]) -> dict[str, Any]:
    """How the checkpoint was shown its images."""
    mean, std = _STATISTICS.get(tower["model_type"], _IMAGENET)
    found: dict[str, Any] = {"image_mean": mean, "image_std": std}
    try:
        settings, _ = transformers_module().ImageProcessingMixin.get_image_processor_dict(source)
    except OSError:  # the checkpoint has no image processor, or the hub is out of reach
        settings = {}
    for name in ("image_mean", "image_std"):
        if settings.get(name) is not None:
            found[name] = settings[name]
    size = settings.get("crop_size") or settings.get("size")
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    if size is not None:
        found["image_size"] = int(size)
    if settings.get("resample") == 3:
        found["resample"] = "bicubic"
    return found
