"""Pretrained towers of ``transformers``: an image as patch features, an instruction as tokens."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from rftf_torchrl.nets.pictures import check_picture
from rftf_torchrl.optional import optional_module, transformers_module
from rftf_torchrl.values.pretrained.config import PretrainedEncoderConfig, Training

if TYPE_CHECKING:
    from typing_extensions import Self

# AutoModel does not know the two towers of a contrastive model by themselves.
_CLASSES = {
    "clip_text_model": "CLIPTextModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip_text_model": "SiglipTextModel",
    "siglip_vision_model": "SiglipVisionModel",
}
# What a tower computes beyond its last hidden state, or in pretraining only.
_UNUSED = {
    "clip_vision_model": r"(^|\.)post_layernorm\.",
    "siglip_text_model": r"(^|\.)head\.",
}
_UNUSED_ANYWHERE = r"(^|\.)(pooler\.|mask_token$)"
_OVERRIDES: dict[str, dict[str, Any]] = {
    "siglip_vision_model": {"vision_use_head": False},
    "vit_mae": {"mask_ratio": 0.0},
}


class _Tower(nn.Module):
    """A pretrained transformer; a frozen one has no gradients and stays in evaluation mode."""

    def __init__(
        self, architecture: dict[str, Any], source: str | None, training: Training, lora_rank: int
    ) -> None:
        super().__init__()
        self.training_mode = training
        self.tower: Any = _build(architecture, source, training, lora_rank)
        self.features = int(self.tower.config.hidden_size)

    def train(self, mode: bool = True) -> Self:
        """Sets the training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.training_mode == "frozen":
            self.tower.eval()
        return self

    def gradients(self) -> Any:
        """A context without gradients where the tower is frozen."""
        return torch.no_grad() if self.training_mode == "frozen" else nullcontext()


class ImageTower(_Tower):
    r"""Encodes images as patch features with a pretrained vision transformer.

    .. math::
        f = \mathrm{tower}\big( (\mathrm{resize}(x / 255) - \mu) / \sigma \big)

    Images are resized to a square without cropping. A frozen tower is evaluated without
    gradients and stays in evaluation mode.

    Args:
        config: sizes; ``image``, ``image_source``, ``image_training`` and the image's settings
            are read.
        weights: whether to load the weights from ``image_source``.

    Raises:
        ImportError: if ``transformers`` (or ``peft``, for ``"lora"``) is missing.
        ValueError: if the checkpoint lacks weights of the tower (all are listed), or the grid is
            finer than its patches.

    Examples:
        >>> _ = __import__("pytest").importorskip("transformers")
        >>> tower = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1}
        >>> tower |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
        >>> tower = ImageTower(PretrainedEncoderConfig(tower, image_size=28))
        >>> tower(torch.zeros(5, 3, 64, 64, dtype=torch.uint8)).shape
        torch.Size([5, 5, 16])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PretrainedEncoderConfig, *, weights: bool = True) -> None:
        source = config.image_source if weights else None
        super().__init__(config.image, source, config.image_training, config.lora_rank)
        self.size = config.image_size
        self.grid = config.grid
        self.resample = config.resample
        settings = self.tower.config
        self.side = self.size // int(settings.patch_size)
        if self.grid is not None and not 1 <= self.grid <= self.side:
            raise ValueError(
                f"grid must be 1 to {self.side}, the edge of this tower's patches, got "
                f"{self.grid}: the patches are averaged, not made more."
            )
        self._options: dict[str, Any] = {}
        accepted = inspect.signature(self.tower.forward).parameters
        if self.size != settings.image_size and "interpolate_pos_encoding" in accepted:
            self._options["interpolate_pos_encoding"] = True
        self._shuffles = settings.model_type == "vit_mae"
        for name, value in (("mean", config.image_mean), ("std", config.image_std)):
            buffer = torch.tensor(value).reshape(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Encodes images.

        Args:
            image: uint8 [N, 3, H, W].

        Returns:
            float [N, P, features]: the tower's class token and the like, then its patches row by
            row, averaged to ``grid`` x ``grid`` if a grid is set.

        Raises:
            TypeError: if the image is not uint8.
            ValueError: if it does not have three channels.
        """
        check_picture(image)
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"image must have shape [N, 3, H, W], got {tuple(image.shape)}.")
        options = dict(self._options)
        if self._shuffles:  # rising noise keeps every patch, in its order
            options["noise"] = torch.arange(self.side**2, device=image.device).expand(
                len(image), -1
            )
        with self.gradients():
            states = self.tower(self.normalised(image), **options).last_hidden_state
            return states if self.grid is None else self._pooled(states)

    def normalised(self, image: Tensor) -> Tensor:
        """Resizes and normalises images uint8 [N, 3, H, W] as the tower expects them."""
        x = image.float() / 255
        if x.shape[-2:] != (self.size, self.size):
            x = interpolate(x, (self.size, self.size), mode=self.resample, antialias=True)
            x = x.clamp(0, 1)
        return ((x - self.mean) / self.std).to(next(self.tower.parameters()).dtype)

    def _pooled(self, states: Tensor) -> Tensor:
        extra = states.shape[1] - self.side**2
        patches = states[:, extra:].mT.unflatten(-1, (self.side, self.side))
        pooled = adaptive_avg_pool2d(patches, self.grid).flatten(2).mT
        return torch.cat([states[:, :extra], pooled], 1)


class TextTower(_Tower):
    """Encodes instructions as token features with a pretrained text transformer.

    Each distinct instruction of a batch is encoded once, and padding is masked, so that it
    changes nothing.

    Args:
        config: sizes; ``text``, ``text_source`` and ``text_training`` are read.
        weights: whether to load the weights from ``text_source``.

    Raises:
        ImportError: if ``transformers`` (or ``peft``, for ``"lora"``) is missing.
        ValueError: if the config has no text tower, or the checkpoint lacks weights of it.

    Examples:
        >>> _ = __import__("pytest").importorskip("transformers")
        >>> text = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1}
        >>> text |= {"num_attention_heads": 2, "vocab_size": 8, "max_position_embeddings": 6}
        >>> tower = TextTower(PretrainedEncoderConfig({"model_type": "dinov2"}, text))
        >>> tokens = torch.tensor([[5, 3, 0], [5, 4, 7]])
        >>> tower(tokens, tokens > 0).shape
        torch.Size([2, 3, 16])
    """

    def __init__(self, config: PretrainedEncoderConfig, *, weights: bool = True) -> None:
        if config.text is None:
            raise ValueError("this config has no text tower: set text, or use TokenEncoder.")
        source = config.text_source if weights else None
        super().__init__(config.text, source, config.text_training, config.lora_rank)
        self.vocab_size = int(self.tower.config.vocab_size)
        self.max_tokens = int(self.tower.config.max_position_embeddings)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encodes instructions.

        Args:
            tokens: int64 [N, L], of the tower's own tokenizer.
            mask: bool [N, L], True at real tokens.

        Returns:
            float [N, L, features].

        Raises:
            ValueError: if an instruction is too long or a token is not in the vocabulary.
        """
        if tokens.shape[-1] > self.max_tokens:
            raise ValueError(
                f"tokens must have at most {self.max_tokens} positions for this text tower, got "
                f"shape {tuple(tokens.shape)}: give InstructionTokens a smaller max_length."
            )
        both = torch.cat([tokens, mask.to(tokens.dtype)], -1)
        distinct, rows = both.unique(dim=0, return_inverse=True)
        tokens, attention = distinct.chunk(2, -1)
        if tokens.numel() and int(tokens.max()) >= self.vocab_size:
            raise ValueError(
                f"token {int(tokens.max())} is not among the {self.vocab_size} of this text tower: "
                "write the tokens by InstructionTokens(tokenizer) with the tower's own tokenizer."
            )
        with self.gradients():
            states: Tensor = self.tower(
                input_ids=tokens, attention_mask=attention
            ).last_hidden_state
        return states[rows]


@contextmanager
def _no_loading_report(logging: Any) -> Iterator[None]:
    """Do not list the other tower of a checkpoint as unexpected; what is missing is an error."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _build(
    architecture: dict[str, Any], source: str | None, training: Training, lora_rank: int
) -> Any:
    transformers = transformers_module()
    kind = architecture["model_type"]
    settings = {k: v for k, v in architecture.items() if k != "model_type"}
    settings |= _OVERRIDES.get(kind, {})
    if kind in _CLASSES:
        model_class = getattr(transformers, _CLASSES[kind])
        config = model_class.config_class(**settings)
    else:
        config = transformers.AutoConfig.for_model(kind, **settings)
        model_class = transformers.MODEL_MAPPING[type(config)]
    unused = "|".join(filter(None, (_UNUSED_ANYWHERE, _UNUSED.get(kind))))
    if source is None:
        tower = model_class(config)
    else:
        with _no_loading_report(transformers.utils.logging):
            tower, report = model_class.from_pretrained(
                source, config=config, output_loading_info=True
            )
        missing = sorted(key for key in report["missing_keys"] if not re.search(unused, key))
        if missing:
            raise ValueError(
                f"{source} lacks weights of the {kind} tower: {missing}. Expected a checkpoint of "
                "the same architecture."
            )
    tower.requires_grad_(training == "full")
    if training == "lora":
        peft = optional_module("peft", "lora", "a tower with low-rank adapters")
        skipped = [n for n, _ in tower.named_modules() if re.search(unused, f"{n}.")]
        adapters = peft.LoraConfig(
            r=lora_rank,
            lora_alpha=2 * lora_rank,
            target_modules="all-linear",
            exclude_modules=skipped or None,
        )
        tower = peft.inject_adapter_in_model(adapters, tower)
    for name, parameter in tower.named_parameters():
        if re.search(unused, name):
            parameter.requires_grad_(False)
    return tower.train(training != "frozen")
