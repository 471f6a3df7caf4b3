"""One encoder for image, proprioceptive state and instruction, and networks on top of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.nets.encoders import ImageEncoder, TokenEncoder, identity_film
from rftf_torchrl.nets.objects import ObjectEncoder, check_objects
from rftf_torchrl.nets.state_statistics import set_statistics
from rftf_torchrl.settings import Count, Counts, check_value


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a :class:`VisionLanguageEncoder`, enough to build it again from JSON.

    Args:
        image_size: height and width of the image; None for an encoder without images.
        state_dim: features of the state; None for an encoder without state.
        vocab_size: number of token ids.
        max_tokens: longest instruction.
        channels: output channels of the three convolutions.
        text_dim: features of a token and of the instruction.
        image_dim: features of the image.
        state_features: features of the state.
        features: features of the result.
        film: whether the instruction modulates the last two layers (FiLM).
        objects: the state's entries of each object, see :class:`ObjectEncoder`; empty for a state
            that is encoded as a whole.

    Raises:
        ValueError: if there is neither an image nor a state, or objects are not of the state.

    Examples:
        >>> config = EncoderConfig(image_size=None, state_dim=7)
        >>> EncoderConfig.from_dict(config.to_dict()) == config
        True
        >>> config.inputs
        ('state', 'tokens', 'mask')
    """

    image_size: int | None = 64
    state_dim: int | None = None
    vocab_size: int = 1024
    max_tokens: int = 32
    channels: tuple[int, int, int] = (32, 48, 64)
    text_dim: int = 64
    image_dim: int = 256
    state_features: int = 64
    features: int = 256
    film: bool = False
    objects: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.image_size is None and self.state_dim is None:
            raise ValueError(
                "an encoder needs an image or a state: set image_size, state_dim or both."
            )
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "objects", tuple(map(tuple, self.objects)))
        if self.objects:
            check_objects(self.objects, self.state_dim or 0)
        for name in ("image_size", "state_dim"):
            check_value(name, getattr(self, name), Count | None)
        for name in (
            "vocab_size",
            "max_tokens",
            "text_dim",
            "image_dim",
            "state_features",
            "features",
        ):
            check_value(name, getattr(self, name), Count)
        check_value("channels", self.channels, Counts)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order in which the networks take them."""
        image = () if self.image_size is None else ("image",)
        state = () if self.state_dim is None else ("state",)
        return (*image, *state, "tokens", "mask")

    @property
    def in_keys(self) -> list[NestedKey]:
        """Default TensorDict keys of the inputs, in the same order."""
        default = {
            "image": keys.IMAGE,
            "state": keys.STATE,
            "tokens": keys.TOKENS,
            "mask": keys.TOKEN_MASK,
        }
        return [default[name] for name in self.inputs]

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict that JSON can hold."""
        return {**asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> EncoderConfig:
        """Builds the config from :meth:`to_dict`."""
        return cls(**config)


class VisionLanguageEncoder(nn.Module):
    r"""Encodes image, state and instruction into one feature vector.

    .. math::
        f = \mathrm{MLP}([\mathrm{image}(x, t), W (s - \mu) / \sigma, t])

    There is neither dropout nor batch normalisation: the same input gives the same features in
    rollout and loss, in train and in eval mode.

    Args:
        config: the sizes.

    Examples:
        >>> encoder = VisionLanguageEncoder(EncoderConfig(image_size=16, state_dim=3, features=8))
        >>> tokens = torch.tensor([[1, 2, 0]])
        >>> image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        >>> encoder(image, torch.zeros(1, 3), tokens, tokens > 0).shape
        torch.Size([1, 8])
    """

    state_mean: Tensor
    state_std: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TokenEncoder(
            config.vocab_size,
            max_tokens=config.max_tokens,
            embedding_dim=config.text_dim,
            out_dim=config.text_dim,
        )
        width = config.text_dim
        if config.image_size is not None:
            self.image = ImageEncoder(
                config.image_size,
                text_dim=config.text_dim,
                channels=config.channels,
                out_dim=config.image_dim,
            )
            width += config.image_dim
        if config.state_dim is not None:
            self.register_buffer("state_mean", torch.zeros(config.state_dim))
            self.register_buffer("state_std", torch.ones(config.state_dim))
            if config.objects:
                self.objects = ObjectEncoder(
                    config.objects, config.state_dim, config.vocab_size, config.state_features
                )
                width += 2 * config.state_features
            else:
                self.state = nn.Linear(config.state_dim, config.state_features)
                width += config.state_features
        self.fuse = nn.Sequential(
            nn.Linear(width, config.features),
            nn.ReLU(),
            nn.Linear(config.features, config.features),
            nn.ReLU(),
        )
        if config.film:
            self.films = nn.ModuleList(
                identity_film(config.text_dim, config.features) for _ in range(2)
            )

    def set_state_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and standard deviation that standardise the state.

        Args:
            mean: float [state_dim].
            std: float [state_dim]; entries below 1e-3 (constant features) count as 1.

        Raises:
            ValueError: if the encoder has no state or a shape is wrong, or a number not finite.
        """
        if self.config.state_dim is None:
            raise ValueError("this encoder has no state: build it with state_dim.")
        buffers = self.state_mean, self.state_std
        set_statistics(*buffers, mean, std)
        if self.config.objects:
            set_statistics(*buffers, self.objects.shared(mean), self.objects.shared(std))

    def forward(
        self, image: Tensor | None, state: Tensor | None, tokens: Tensor, mask: Tensor
    ) -> Tensor:
        """Encodes a batch of observations.

        Args:
            image: uint8 [*B, 3, image_size, image_size]; unused without image_size.
            state: float [*B, state_dim]; unused without state_dim.
            tokens: int64 [*B, L].
            mask: bool [*B, L], True at real tokens.

        Returns:
            float [*B, features].

        Raises:
            ValueError: if an input that the config asks for is None or has a wrong shape.
        """
        text = self.text(tokens, mask)
        parts = [text]
        if self.config.image_size is not None:
            parts.append(self.image(self._present("image", image), text))
        if self.config.state_dim is not None:
            state = self._present("state", state)
            if state.shape[-1] != self.config.state_dim:
                raise ValueError(
                    f"state must end in {self.config.state_dim} features, got shape "
                    f"{tuple(state.shape)}."
                )
            standardised = (state.to(self.state_mean.dtype) - self.state_mean) / self.state_std
            if self.config.objects:
                parts.append(self.objects(standardised, tokens, mask))
            else:
                parts.append(torch.relu(self.state(standardised)))
        return self._fuse(torch.cat(parts, -1), text)

    def _fuse(self, x: Tensor, text: Tensor) -> Tensor:
        if not self.config.film:
            x = self.fuse(x)
            return x
        for layer, film in zip((self.fuse[0], self.fuse[2]), self.films, strict=True):
            gamma, beta = film(text).chunk(2, dim=-1)
            x = torch.relu(layer(x) * (1 + gamma) + beta)
        return x

    def _present(self, name: str, value: Tensor | None) -> Tensor:
        if value is None:
            raise ValueError(
                f"this encoder needs {name!r} and got None: its config has inputs "
                f"{self.config.inputs}."
            )
        return value


class HeadNetwork(nn.Module):
    """An encoder and one linear layer, taking the inputs that the encoder's config names.

    Args:
        encoder: the encoder.
        out_shape: shape of the result without the batch.
        gain: factor on the last layer's initial weights; 0 starts at exactly zero.

    Examples:
        >>> encoder = VisionLanguageEncoder(EncoderConfig(image_size=None, state_dim=2))
        >>> network = HeadNetwork(encoder, (4, 3))
        >>> tokens = torch.tensor([[1, 2]])
        >>> network(torch.zeros(1, 2), tokens, tokens > 0).shape
        torch.Size([1, 4, 3])
    """

    def __init__(
        self, encoder: VisionLanguageEncoder, out_shape: tuple[int, ...], *, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_shape = tuple(out_shape)
        width = 1
        for size in self.out_shape:
            width *= size
        self.head = nn.Linear(encoder.config.features, width)
        with torch.no_grad():
            self.head.weight.mul_(gain)
            self.head.bias.zero_()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Applies the network to the inputs named by ``encoder.config.inputs``, in that order.

        Returns:
            float [*B, *out_shape].

        Raises:
            ValueError: if the number of inputs is wrong.
        """
        names = self.encoder.config.inputs
        if len(inputs) != len(names):
            raise ValueError(f"expected the {len(names)} inputs {names}, got {len(inputs)}.")
        named = {"image": None, "state": None, **dict(zip(names, inputs, strict=True))}
        return torch.unflatten(self.head(self.encoder(**named)), -1, self.out_shape)
