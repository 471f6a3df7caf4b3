"""One forward of a vision-language model for a whole action chunk: learned query tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.state_statistics import set_statistics
from rftf_torchrl.nets.tower_features import trains
from rftf_torchrl.policies.transformers_vla.backbone import tower_of, trunk_of
from rftf_torchrl.policies.transformers_vla.families import family_of


@dataclass(frozen=True)
class Prompt:
    """What a model is given, [B, L, ...].

    Attributes:
        embeddings: [B, L, hidden_size].
        mask: bool [B, L], False at padding.
        is_image: bool [B, L], True at image tokens.
        positions: position ids, [B, L] or [B, 3, L].
        deep: Qwen3-VL's image features for its first layers.
        prefix: how many of them are padding, image and instruction.
    """

    embeddings: Tensor
    mask: Tensor
    is_image: Tensor
    positions: Tensor
    deep: list[Tensor] | None
    prefix: int

    def extended(self, added: Tensor) -> Prompt:
        """The prompt with further embeddings [B, n, hidden_size] behind it.

        They continue the count of the largest position on every axis.
        """
        batch, count = added.shape[:2]
        begin = self.positions.flatten(1).amax(1) + 1
        ahead = begin.unsqueeze(-1) + torch.arange(count, device=begin.device)
        ahead = ahead.view(batch, *(1,) * (self.positions.ndim - 2), count)
        ahead = ahead.expand(*self.positions.shape[:-1], count)
        return Prompt(
            torch.cat([self.embeddings, added.to(self.embeddings.dtype)], 1),
            torch.cat([self.mask, self.mask.new_ones(batch, count)], 1),
            torch.cat([self.is_image, self.is_image.new_zeros(batch, count)], 1),
            torch.cat([self.positions, ahead], -1),
            self.deep,
            self.prefix,
        )


class QueryNetwork(nn.Module):
    """Appends learned query tokens to the prompt and returns the hidden states at their places.

    The sequence is [padding, image and instruction, state, queries]. A query sees all that is
    before it, and its input does not depend on any action, so that one forward serves the whole
    chunk.

    Source: parallel decoding with empty action embeddings, Kim, Finn, Liang 2025, "OpenVLA-OFT",
    arXiv 2502.19645, section 4.1; here the queries are learned and attention stays causal.

    Args:
        backbone: an image-text-to-text model; it stays reachable as the attribute ``backbone``,
            which a PEFT model of it may replace.
        queries: number of query tokens; 0 for decoding token by token.
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
    def trunk(self) -> Any:
        """The part of the backbone that every forward calls: from embeddings to hidden states."""
        trunk = trunk_of(self.backbone)
        return trunk.language_model if self.has_deepstack else trunk

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the network reads."""
        return ("input_ids", "attention_mask", "position_ids", *self.image_inputs)

    @property
    def image_inputs(self) -> tuple[str, ...]:
        """Names of those that tell of the images."""
        return ("pixel_values", "image_grid_thw") if self.family.grid else ("pixel_values",)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of what :meth:`frozen_features` may return."""
        if self.family.connector is not None:
            return ("patches", "image_tokens")
        return ("image_tokens", "deepstack") if self.has_deepstack else ("image_tokens",)

    def set_state_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and standard deviation that standardise the state.

        Args:
            mean: float [state_dim].
            std: float [state_dim]; entries below 1e-3 (constant features) count as 1.

        Raises:
            ValueError: if a shape is wrong, or a number not finite.
        """
        if self.state_dim is None:
            return
        set_statistics(self.state_mean, self.state_std, mean, std)

    def image_features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the vision tower and its connector make of the images.

        It depends on the observation alone.

        Args:
            inputs: the tensors named by :attr:`image_inputs`, ``pixel_values`` uint8 [B, ...] and,
                where the family has it, ``image_grid_thw`` int64 [B, images, 3].

        Returns:
            ``"image_tokens"`` [B, tokens, hidden_size], in the model's dtype; of Qwen3-VL also
            ``"deepstack"`` [B, levels, tokens, hidden_size].
        """
        return self._connect(self._see(inputs))

    def frozen_features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The part of :meth:`image_features` that training does not change.

        Args:
            inputs: see :meth:`image_features`.

        Returns:
            That method's output, if neither tower nor connector trains; the tower's output alone,
            ``"patches"`` [B, images, patches, features], if the connector does; nothing if the
            tower does.
        """
        if trains(tower_of(self.backbone)):
            return {}
        seen = self._see(inputs)
        connector = self.family.connector
        if connector is not None and trains(getattr(trunk_of(self.backbone), connector)):
            return seen
        return self._connect(seen)

    def _see(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        trunk = trunk_of(self.backbone)
        pixels = self.normalised(inputs["pixel_values"])
        batch = len(pixels)
        if self.family.grid:
            grid = inputs["image_grid_thw"].flatten(0, 1)
            seen = trunk.get_image_features(pixels.flatten(0, 1), grid)
            tokens = torch.cat(list(seen.pooler_output))
            found = {"image_tokens": tokens.reshape(batch, -1, self.hidden_size)}
            if self.has_deepstack:
                levels = [torch.cat(list(level)) for level in seen.deepstack_features]
                levels = [level.reshape(batch, -1, self.hidden_size) for level in levels]
                found["deepstack"] = torch.stack(levels, 1)
            return found
        tower = tower_of(self.backbone)
        patches = tower(pixels.flatten(0, 1).to(trunk.dtype)).last_hidden_state
        return {"patches": patches.unflatten(0, (batch, -1))}

    def _connect(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "image_tokens" in seen:
            return dict(seen)
        connector = getattr(trunk_of(self.backbone), str(self.family.connector))
        tokens = connector(seen["patches"].flatten(0, 1))
        return {"image_tokens": tokens.reshape(len(seen["patches"]), -1, self.hidden_size)}

    def normalised(self, pixels: Tensor) -> Tensor:
        """Rescale and normalise as the image processor does."""
        mean, std = self.image_mean, self.image_std
        if self.family.grid:
            area = pixels.shape[-1] // len(mean)
            mean, std = mean.repeat_interleave(area), std.repeat_interleave(area)
        else:
            mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        return (pixels.float() * self.rescale - mean) / std

    def prompt(
        self,
        inputs: Mapping[str, Tensor],
        state: Tensor | None = None,
        image_features: Mapping[str, Tensor] | None = None,
    ) -> Prompt:
        """Embeds padding, image, instruction and state.

        Args:
            inputs: the tensors named by :attr:`inputs`, [B, ...].
            state: float [B, state_dim].
            image_features: of :meth:`image_features` or :meth:`frozen_features`, where they are
                known already.

        Returns:
            What every forward of the model begins with.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        is_image = (ids == self.image_token_id) & mask
        words = self.embed(ids.masked_fill(is_image, 0))
        seen = self._connect(image_features or self._see(inputs))
        tokens = seen["image_tokens"].flatten(0, 1).to(words.dtype)
        words = words.masked_scatter(is_image.unsqueeze(-1), tokens)
        deep = None
        if self.has_deepstack:
            deep = list(seen["deepstack"].transpose(0, 1).flatten(1, 2))
        prompt = Prompt(words, mask, is_image, inputs["position_ids"], deep, ids.shape[1])
        if self.state_dim is None:
            return prompt
        if state is None or state.shape[-1] != self.state_dim:
            got = None if state is None else tuple(state.shape)
            raise ValueError(f"state must end in {self.state_dim} features, got shape {got}.")
        standardised = (state.to(self.state_mean.dtype) - self.state_mean) / self.state_std
        return prompt.extended(self.state(standardised).unsqueeze(1))

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of token ids, in the model's dtype."""
        return cast(Tensor, trunk_of(self.backbone).get_input_embeddings()(ids))

    @cached_property
    def _cache_name(self) -> str:
        """Of the trunk's argument; transformers 5.20 passes over a name that it does not know."""
        names = inspect.signature(self.trunk.forward).parameters
        return "cache" if "cache" in names else "past_key_values"

    def run(self, prompt: Prompt, *, last: int, cache: Any = None) -> Tensor:
        """Runs the model.

        Args:
            prompt: everything that the model has seen or is to see now.
            last: how many hidden states to return.
            cache: of keys and values; then only what is not in it is run.

        Returns:
            The last hidden states, [B, last, hidden_size].
        """
        known = 0 if cache is None else cache.get_seq_length()
        positions = prompt.positions[..., known:]
        arguments: dict[str, Any] = {
            "inputs_embeds": prompt.embeddings[:, known:],
            "attention_mask": prompt.mask.long(),
            "position_ids": positions.movedim(0, -2) if self.family.grid else positions,
            "use_cache": cache is not None,
        }
        if cache is not None:
            arguments[self._cache_name] = cache
        if self.family.prefix_types and not known:
            count = prompt.embeddings.shape[1] - prompt.prefix
            types = prompt.mask.new_zeros(len(prompt.mask), prompt.prefix, dtype=torch.long)
            arguments["token_type_ids"] = nn.functional.pad(types, (0, count), value=1)
        if self.has_deepstack and not known:
            arguments["visual_pos_masks"] = prompt.is_image
            arguments["deepstack_visual_embeds"] = prompt.deep
        hidden: Tensor = self.trunk(**arguments).last_hidden_state
        return hidden[:, -last:]

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        state: Tensor | None = None,
        image_features: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Runs the model once.

        Args:
            inputs: see :meth:`prompt`.
            state: see :meth:`prompt`.
            image_features: see :meth:`prompt`.

        Returns:
            Hidden states at the queries, [B, queries, hidden_size], in the model's dtype.
        """
        prompt = self.prompt(inputs, state, image_features)
        queries = self.queries.expand(len(prompt.mask), -1, -1)
        return self.run(prompt.extended(queries), last=len(self.queries))
