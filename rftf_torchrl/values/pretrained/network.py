"""A score of an image under an instruction, on pretrained towers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.encoders import TokenEncoder
from rftf_torchrl.values.pretrained.config import PretrainedEncoderConfig
from rftf_torchrl.values.pretrained.towers import ImageTower, TextTower


class VisionLanguageFusion(nn.Module):
    r"""Joins image patches and text tokens into one feature vector.

    With ``"cross_attention"`` a learned readout token and the text tokens attend to each other
    (padding is masked) and to the image patches,

    .. math::
        q \leftarrow q + \mathrm{SelfAttention}(q), \quad
        q \leftarrow q + \mathrm{Attention}(q, x, x), \quad
        q \leftarrow q + \mathrm{MLP}(q),

    and the readout token is the result. ``"concatenation"`` takes
    :math:`\mathrm{MLP}([\bar x, \bar t])` of the means, ``"film"`` takes
    :math:`\mathrm{MLP}(\mathrm{mean}_p \, \mathrm{ReLU}((1 + \gamma(\bar t)) x_p +
    \beta(\bar t)))`.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2 (the attention);
    Perez et al. 2018, "FiLM", eq. 2.

    Args:
        config: sizes; ``fusion``, ``features``, ``layers`` and ``heads`` are read.
        image_dim: features of an image patch.
        text_dim: features of a text token.

    Examples:
        >>> config = PretrainedEncoderConfig({"model_type": "dinov2"}, features=8, heads=2)
        >>> fusion = VisionLanguageFusion(config, image_dim=4, text_dim=6)
        >>> mask = torch.tensor([[True, True, False]])
        >>> fusion(torch.zeros(1, 9, 4), torch.zeros(1, 3, 6), mask).shape
        torch.Size([1, 8])
    """

    def __init__(self, config: PretrainedEncoderConfig, image_dim: int, text_dim: int) -> None:
        super().__init__()
        width = config.features
        self.kind = config.fusion
        self.image = nn.Sequential(nn.LayerNorm(image_dim), nn.Linear(image_dim, width))
        self.text = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, width))
        if self.kind == "cross_attention":
            self.readout = nn.Parameter(torch.randn(width) * 0.02)
            layer = nn.TransformerDecoderLayer(
                width,
                config.heads,
                dim_feedforward=2 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            self.attention = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(width))
            return
        if self.kind == "film":
            self.film = nn.Linear(width, 2 * width)
            nn.init.normal_(self.film.weight, std=0.02)
            nn.init.zeros_(self.film.bias)
        self.head = nn.Sequential(
            nn.Linear(width if self.kind == "film" else 2 * width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Joins a batch.

        Args:
            image: float [N, P, image_dim].
            text: float [N, L, text_dim].
            mask: bool [N, L], True at real tokens.

        Returns:
            float [N, features].
        """
        image, text = self.image(image), self.text(text)
        if self.kind == "cross_attention":
            readout = self.readout.to(text.dtype).expand(len(text), 1, -1)
            padding = torch.cat([torch.zeros_like(mask[:, :1]), ~mask], 1)
            joined: Tensor = self.attention(
                torch.cat([readout, text], 1), image, tgt_key_padding_mask=padding
            )
            return joined[:, 0]
        weight = mask.unsqueeze(-1).to(text.dtype)
        mean = (text * weight).sum(1) / weight.sum(1).clamp_min(1)
        if self.kind == "film":
            gamma, beta = self.film(mean).unsqueeze(1).chunk(2, -1)
            joined = self.head(torch.relu((1 + gamma) * image + beta).mean(1))
        else:
            joined = self.head(torch.cat([image.mean(1), mean], -1))
        return joined


class PretrainedNetwork(nn.Module):
    """An image tower, a text encoder, their fusion and one linear layer.

    It takes the image itself or the features that its frozen image tower gave it before (see
    :func:`cache_image_features`): images are uint8, features are floating-point numbers.

    Args:
        config: the sizes.
        weights: whether to load the towers' weights from the config's sources; False leaves them
            random, for a state dict to fill.

    Examples:
        >>> _ = __import__("pytest").importorskip("transformers")
        >>> tower = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1}
        >>> tower |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
        >>> config = PretrainedEncoderConfig(tower, image_size=28, features=16)
        >>> network = PretrainedNetwork(config)
        >>> image = torch.zeros(2, 5, 3, 64, 64, dtype=torch.uint8)
        >>> tokens = torch.ones(2, 5, 4, dtype=torch.int64)
        >>> network(image, tokens, tokens > 0).shape
        torch.Size([2, 5, 1])
    """

    def __init__(self, config: PretrainedEncoderConfig, *, weights: bool = True) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config, weights=weights)
        self.text: TextTower | TokenEncoder
        if config.text is None:
            self.text = TokenEncoder(
                config.vocab_size,
                max_tokens=config.max_tokens,
                embedding_dim=config.features,
                out_dim=config.features,
            )
            text_dim = config.features
        else:
            self.text = TextTower(config, weights=weights)
            text_dim = self.text.features
        self.fusion = VisionLanguageFusion(config, self.image.features, text_dim)
        self.head = nn.Linear(config.features, 1)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Scores images under instructions.

        Args:
            image: uint8 [*B, 3, H, W], or cached features, float [*B, P, D].
            tokens: int64 [*B, L].
            mask: bool [*B, L], True at real tokens.

        Returns:
            float [*B, 1].

        Raises:
            ValueError: if cached features have another width than the tower's.
        """
        batch = tokens.shape[:-1]
        tokens, mask = tokens.reshape(-1, tokens.shape[-1]), mask.reshape(-1, mask.shape[-1])
        patches = self._patches(image, len(batch))
        if isinstance(self.text, TextTower):
            text = self.text(tokens, mask)
        else:
            text = self.text(tokens, mask).unsqueeze(1)
            mask = torch.ones_like(mask[:, :1])
        score: Tensor = self.head(self.fusion(patches, text, mask))
        return score.reshape(*batch, 1)

    def _patches(self, image: Tensor, batch_dims: int) -> Tensor:
        if not image.is_floating_point():
            patches: Tensor = self.image(image.reshape(-1, *image.shape[-3:]))
            return patches
        if image.ndim != batch_dims + 2 or image.shape[-1] != self.image.features:
            raise ValueError(
                f"image must be a uint8 image or cached features [*B, P, {self.image.features}] "
                f"of this model's own tower, got {image.dtype} of shape {tuple(image.shape)}."
            )
        return image.reshape(-1, *image.shape[-2:]).to(self.head.weight.dtype)
