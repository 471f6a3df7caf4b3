"""Encoders of one observation: an image modulated by text, and an instruction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.pictures import check_picture


class ImageEncoder(nn.Module):
    r"""Encodes an image with three convolutions, the last two modulated by the instruction (FiLM).

    .. math::
        x_k \leftarrow \mathrm{ReLU}\big( (1 + \gamma_k(t)) \cdot \mathrm{conv}_k(x_{k-1})
        + \beta_k(t) \big), \quad k = 2, 3

    Source: Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer", eq. 2.
    The modulation starts as the identity.

    Args:
        image_size: height and width of the image in pixels.
        text_dim: features of the text embedding.
        channels: output channels of the three convolutions.
        out_dim: features of the result.

    Examples:
        >>> encoder = ImageEncoder(16, text_dim=8, channels=(4, 4, 4), out_dim=32)
        >>> encoder(torch.zeros(2, 5, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 32])
    """

    def __init__(
        self,
        image_size: int,
        *,
        text_dim: int,
        channels: tuple[int, int, int] = (32, 48, 64),
        out_dim: int = 256,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        first, second, third = channels
        self.conv1 = nn.Conv2d(3, first, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.film2 = identity_film(text_dim, second)
        self.film3 = identity_film(text_dim, third)
        side = (image_size + 7) // 8
        self.head = nn.Sequential(nn.Linear(third * side * side, out_dim), nn.LayerNorm(out_dim))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Encodes images.

        Args:
            image: uint8 [*B, 3, image_size, image_size].
            text: float [*B, text_dim].

        Returns:
            float [*B, out_dim].

        Raises:
            TypeError: if the image is not uint8.
            ValueError: if the image has another size.
        """
        check_picture(image)
        expected = (3, self.image_size, self.image_size)
        if tuple(image.shape[-3:]) != expected:
            raise ValueError(
                f"image must end in shape {expected}, got {tuple(image.shape)}: resize the frames "
                "or build the encoder with their image_size."
            )
        batch = image.shape[:-3]
        text = text.reshape(-1, text.shape[-1])
        x: Tensor = image.reshape(-1, *expected).to(text.dtype).div_(255).sub_(0.5)
        x = self.conv1(x).relu_()
        x = _modulate(self.conv2(x), self.film2(text)).relu_()
        x = _modulate(self.conv3(x), self.film3(text)).relu_()
        x = self.head(x.flatten(1))
        return x.reshape(*batch, -1)


class TokenEncoder(nn.Module):
    r"""Encodes an instruction as the masked mean of its transformed tokens.

    .. math::
        t = \mathrm{MLP}\Big( \frac{\sum_i m_i \, \mathrm{ReLU}(W (e_{w_i} + p_i))}
        {\sum_i m_i} \Big)

    The layer before the mean binds each word to its position, so word order counts.

    Args:
        vocab_size: number of token ids.
        max_tokens: longest instruction.
        embedding_dim: features of a token.
        out_dim: features of the result.

    Examples:
        >>> encoder = TokenEncoder(16, max_tokens=4, embedding_dim=8, out_dim=8)
        >>> tokens = torch.tensor([[1, 2, 0, 0]])
        >>> encoder(tokens, tokens > 0).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        vocab_size: int = 1024,
        *,
        max_tokens: int = 32,
        embedding_dim: int = 64,
        out_dim: int = 64,
    ) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self._last: list[Tensor] | None = None
        self.words = nn.Embedding(vocab_size, embedding_dim)
        self.positions = nn.Parameter(torch.randn(max_tokens, embedding_dim) * 0.1)
        self.bind = nn.Linear(embedding_dim, embedding_dim)
        self.head = nn.Sequential(
            nn.Linear(embedding_dim, out_dim), nn.ReLU(), nn.Linear(out_dim, out_dim)
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encodes instructions.

        Args:
            tokens: int64 [*B, L] with L at most max_tokens.
            mask: bool [*B, L], True at real tokens.

        Returns:
            float [*B, out_dim]; an instruction without real tokens encodes as the mean zero.

        Raises:
            ValueError: if the instruction is too long or the mask has another shape.
        """
        length = tokens.shape[-1]
        if length > self.max_tokens:
            raise ValueError(
                f"tokens must have at most {self.max_tokens} positions, got shape "
                f"{tuple(tokens.shape)}: build the encoder with a larger max_tokens."
            )
        if mask.shape != tokens.shape:
            raise ValueError(
                f"mask must have the shape of tokens, got {tuple(mask.shape)} and "
                f"{tuple(tokens.shape)}."
            )
        if self._last and torch.equal(tokens, self._last[0]) and torch.equal(mask, self._last[1]):
            return self._last[2]
        x: Tensor = torch.relu(self.bind(self.words(tokens) + self.positions[:length]))
        weight = mask.unsqueeze(-1).to(x.dtype)
        x = self.head((x * weight).sum(-2) / weight.sum(-2).clamp_min(1))
        if self._last is not None:
            self._last = [tokens.clone(), mask.clone(), x]
        return x


@contextmanager
def keep_instruction(module: nn.Module) -> Iterator[None]:
    """Lets a module's token encoders encode the same tokens once, while no weight changes."""
    encoders = [part for part in module.modules() if isinstance(part, TokenEncoder)]
    for encoder in encoders:
        encoder._last = []
    try:
        yield
    finally:
        for encoder in encoders:
            encoder._last = None


def random_shift(image: Tensor, pad: int = 4, generator: torch.Generator | None = None) -> Tensor:
    """Shifts every image by up to `pad` pixels in each direction, repeating its border.

    For the batches of behaviour cloning and of the value model only. In PPO the image of the
    loss must be the image of the rollout, so it is a function on data and not an encoder layer.

    Source: Kostrikov et al. 2020, "Image Augmentation Is All You Need" (DrQ), section 3.1.

    Args:
        image: any dtype [*B, C, H, W].
        pad: largest shift in pixels; 0 returns the image unchanged.
        generator: source of randomness, on the device of the image.

    Returns:
        Shifted images, same shape and dtype.

    Examples:
        >>> image = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
        >>> random_shift(image, 2, torch.Generator().manual_seed(0)).shape
        torch.Size([1, 1, 4, 4])
    """
    if pad == 0:
        return image
    flat = image.reshape(-1, *image.shape[-3:])
    count, _, height, width = flat.shape
    shift = torch.randint(-pad, pad + 1, (2, count), generator=generator, device=image.device)
    rows = torch.arange(height, device=image.device) + shift[0].unsqueeze(-1)
    columns = torch.arange(width, device=image.device) + shift[1].unsqueeze(-1)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    index = torch.arange(count, device=image.device)[:, None, None]
    shifted = flat.movedim(1, -1)[index, rows[:, :, None], columns[:, None, :]]
    return shifted.movedim(-1, 1).reshape(image.shape)


def identity_film(text_dim: int, channels: int) -> nn.Linear:
    film = nn.Linear(text_dim, 2 * channels)
    nn.init.normal_(film.weight, std=0.02)
    nn.init.zeros_(film.bias)
    return film


def _modulate(x: Tensor, film: Tensor) -> Tensor:
    gamma, beta = film[..., None, None].chunk(2, dim=-3)
    return x * (1 + gamma) + beta
