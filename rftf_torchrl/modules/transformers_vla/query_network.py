"""One forward of a vision-language model for a whole action chunk: learned query tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rftf_torchrl.modules.transformers_vla.backbone import trunk_of
from rftf_torchrl.modules.transformers_vla.families import family_of

__all__ = ["QueryNetwork"]


class QueryNetwork(nn.Module):
    """Appends learned query tokens to the prompt and returns the hidden states at their places.

    The sequence is [padding, picture and sentence, state, queries]. A query sees all that is
    before it, and its input does not depend on any action, so that one forward serves the whole
    chunk.

    Source: parallel decoding with empty action embeddings, Kim, Finn, Liang 2025, "OpenVLA-OFT",
    arXiv 2502.19645, section 4.1; here the queries are learned and attention stays causal.

    Args:
        backbone: an image-text-to-text model; it stays reachable as the attribute ``backbone``,
            which a PEFT model of it may replace.
        queries: number of query tokens.
        image_mean: of the image processor, one number for each colour.
        image_std: of the image processor.
        rescale: of the image processor.
        state_dim: features of the state that becomes one more token; None for none.

    Attributes:
        hidden_size: features of a hidden state.
    """

    image_mean: Tensor
    image_std: Tensor
    state_mean: Tensor
    state_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        queries: int,
        *,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        rescale: float = 1 / 255,
        state_dim: int | None = None,
    ) -> None:
        super().__init__()
        config: Any = backbone.config
        self.family = family_of(config.to_dict())
        self.image_token_id: int = config.image_token_id
        self.has_deepstack = config.model_type == "qwen3_vl"
        self.hidden_size: int = config.get_text_config().hidden_size
        self.backbone = backbone
        self.rescale = float(rescale)
        self.state_dim = state_dim
        words = backbone.get_input_embeddings()  # type: ignore[operator]
        with torch.no_grad():
            some = torch.arange(min(words.num_embeddings, 256), device=words.weight.device)
            spread = words(some).float().std()
        self.queries = nn.Parameter(torch.randn(queries, self.hidden_size) * spread)
        self.register_buffer("image_mean", torch.tensor(image_mean))
        self.register_buffer("image_std", torch.tensor(image_std))
        if state_dim is not None:
            self.register_buffer("state_mean", torch.zeros(state_dim))
            self.register_buffer("state_std", torch.ones(state_dim))
            self.state = nn.Linear(state_dim, self.hidden_size)
            with torch.no_grad():
                self.state.weight.mul_(spread)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the network reads."""
        grid = ("image_grid_thw",) if self.family.grid else ()
        return ("input_ids", "attention_mask", "position_ids", "pixel_values", *grid)

    def set_state_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and standard deviation that standardise the state.

        Args:
            mean: float [state_dim].
            std: float [state_dim]; entries below 1e-3 (constant features) count as 1.

        Raises:
            ValueError: if a shape is wrong.
        """
        if self.state_dim is None:
            return
        for name, value in (("mean", mean), ("std", std)):
            if tuple(value.shape) != (self.state_dim,):
                raise ValueError(
                    f"{name} must have shape ({self.state_dim},), got {tuple(value.shape)}."
                )
        self.state_mean.copy_(mean)
        self.state_std.copy_(torch.where(std < 1e-3, torch.ones_like(std), std))

    def image_features(self, inputs: Mapping[str, Tensor]) -> Any:
        """What the vision tower and its connector make of the pictures.

        It depends on the observation alone, so that a frozen tower's output can be kept.

        Args:
            inputs: ``pixel_values`` uint8 [B, ...] and, where the family has it,
                ``image_grid_thw``.

        Returns:
            The output of the model's ``get_image_features``.
        """
        pixels = self.normalised(inputs["pixel_values"])
        if self.family.grid:
            grid = inputs["image_grid_thw"].flatten(0, 1)
            return trunk_of(self.backbone).get_image_features(pixels.flatten(0, 1), grid)
        if not self.family.nested:
            pixels = pixels.flatten(0, 1)
        return trunk_of(self.backbone).get_image_features(pixels)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Rescale and normalise as the image processor does."""
        mean, std = self.image_mean, self.image_std
        axis = self.family.channel_axis
        if axis is None:
            area = pixels.shape[-1] // len(mean)
            mean, std = mean.repeat_interleave(area), std.repeat_interleave(area)
        else:
            shape = (-1,) + (1,) * (-axis - 1)
            mean, std = mean.view(shape), std.view(shape)
        return (pixels.float() * self.rescale - mean) / std

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        state: Tensor | None = None,
        image_features: Any = None,
    ) -> Tensor:
        """Runs the model once.

        Args:
            inputs: the tensors named by :attr:`inputs`, [B, ...].
            state: float [B, state_dim].
            image_features: of :meth:`image_features`, where they are known already.

        Returns:
            Hidden states at the queries, [B, queries, hidden_size], in the model's dtype.
        """
        trunk = trunk_of(self.backbone)
        ids, mask, positions = (
            inputs["input_ids"], inputs["attention_mask"], inputs["position_ids"]
        )  # fmt: skip
        is_image = (ids == self.image_token_id) & mask
        words = trunk.get_input_embeddings()(ids.masked_fill(is_image, 0))
        seen = self.image_features(inputs) if image_features is None else image_features
        features = seen.pooler_output
        if isinstance(features, (list, tuple)):
            features = torch.cat(list(features))
        features = features.reshape(-1, self.hidden_size).to(words.dtype)
        words = words.masked_scatter(is_image.unsqueeze(-1), features)

        extra = [self.queries.expand(len(ids), -1, -1)]
        if self.state_dim is not None:
            if state is None or state.shape[-1] != self.state_dim:
                got = None if state is None else tuple(state.shape)
                raise ValueError(f"state must end in {self.state_dim} features, got shape {got}.")
            standardised = (state.to(self.state_mean.dtype) - self.state_mean) / self.state_std
            extra.insert(0, self.state(standardised).unsqueeze(1))
        added = torch.cat([part.to(words.dtype) for part in extra], 1)
        count = added.shape[1]
        # A state or query continues the count of the last token of the prompt on every axis.
        last = positions.flatten(1).amax(1) + 1
        ahead = last.unsqueeze(-1) + torch.arange(count, device=ids.device)
        if self.family.axes:
            ahead = ahead.unsqueeze(1).expand(-1, *self.family.axes, -1)
        positions = torch.cat([positions, ahead], -1)
        arguments: dict[str, Any] = {
            "inputs_embeds": torch.cat([words, added], 1),
            "attention_mask": torch.cat([mask, mask.new_ones(len(ids), count)], 1).long(),
            "position_ids": positions.movedim(0, -2) if self.family.axes else positions,
            "use_cache": False,
        }
        if self.family.prefix_types:
            arguments["token_type_ids"] = torch.cat(
                [torch.zeros_like(ids), ids.new_ones(len(ids), count)], 1
            )
        if self.has_deepstack:
            places = torch.cat([is_image, is_image.new_zeros(len(ids), count)], 1)
            deep = [torch.cat(list(level)) for level in seen.deepstack_features]
            arguments |= {"visual_pos_masks": places, "deepstack_visual_embeds": deep}
            trunk = trunk.language_model
        return trunk(**arguments).last_hidden_state[:, -len(self.queries) :]
