"""From images and instructions to the tensors that a vision-language model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rftf_torchrl.files import write_inside
from rftf_torchrl.leftovers import temporary_folder
from rftf_torchrl.nets.sentences import normal_sentence
from rftf_torchrl.optional import transformers_module
from rftf_torchrl.policies.transformers_vla.families import family_of, image_token_of


class VLAProcessor:
    """Tokenizer and image processor of a vision-language model, for prompts of one length.

    Images are resized by the image processor of the model (the one that works on PIL images). They
    stay uint8, which takes a quarter of the memory of the model's input. The policy rescales and
    normalises them with the processor's own numbers, and gets the same result. Prompts are padded
    on the left. A prompt is tokenized once for each distinct instruction.

    Args:
        tokenizer: of ``transformers``.
        image_processor: of ``transformers``.
        config: the model's config, as a dict.
        prompt: with ``{image}`` and ``{instruction}``; None for the family's own.
        prompt_tokens: tokens of the longest prompt, without the image tokens.
        image_options: how to call the image processor; added to the family's own.

    Raises:
        ValueError: if the prompt has not one place for the images and the instruction, or the
            tokenizer does not know the model's image token.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        config: Mapping[str, Any],
        *,
        prompt: str | None = None,
        prompt_tokens: int = 64,
        image_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.family = family_of(config)
        self.prompt = self.family.prompt if prompt is None else prompt
        for place in ("{image}", "{instruction}"):
            if self.prompt.count(place) != 1:
                raise ValueError(
                    f"the prompt {self.prompt!r} has {place} {self.prompt.count(place)} times, "
                    "expected once."
                )
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.config = dict(config)
        self.prompt_tokens = prompt_tokens
        self.image_options = {**self.family.image_options, **(image_options or {})}
        self.image_token_id = image_token_of(config)
        known = self.image_token_id < len(tokenizer)
        self.image_token: Any = (
            tokenizer.convert_ids_to_tokens(self.image_token_id) if known else None
        )
        if self.image_token is None or self.image_token == tokenizer.unk_token:
            raise ValueError(
                f"the tokenizer has no image token: the model's image_token_id is "
                f"{self.image_token_id}, and the tokenizer's {len(tokenizer)} tokens have none of "
                "that number. Take the processor that was saved with the model."
            )
        self._prompts: dict[Any, dict[str, Tensor]] = {}

    @classmethod
    def from_pretrained(
        cls, source: str | Path, config: Mapping[str, Any], **options: Any
    ) -> VLAProcessor:
        """Load tokenizer and image processor from a folder or a hub.

        Args:
            source: local folder or id.
            config: the model's config.
            **options: see :class:`VLAProcessor`.
        """
        transformers = transformers_module("this policy")
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        images = transformers.AutoImageProcessor.from_pretrained(
            source, backend="pil", trust_remote_code=False
        )
        return cls(tokenizer, images, config, **options)

    def files(self) -> dict[str, bytes]:
        """Contents of the files from which :meth:`from_files` loads the processor again."""
        with temporary_folder() as folder:
            self.tokenizer.save_pretrained(folder)
            self.image_processor.save_pretrained(folder)
            paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    @classmethod
    def from_files(
        cls, files: Mapping[str, bytes], config: Mapping[str, Any], **options: Any
    ) -> VLAProcessor:
        """Load the processor from what :meth:`files` gave."""
        with temporary_folder() as folder:
            write_inside(folder, files)
            return cls.from_pretrained(folder, config, **options)

    def __call__(
        self, images: Tensor | Sequence[Sequence[Tensor]], instructions: Sequence[str]
    ) -> dict[str, Tensor]:
        """Process n observations.

        Args:
            images: uint8 [n, images, 3, height, width], or n lists of images
                [3, height, width] of different sizes.
            instructions: n instructions.

        Returns:
            ``input_ids`` int64 [n, L], ``attention_mask`` bool [n, L], ``position_ids`` int64
            [n, L] or [n, 3, L], ``pixel_values`` uint8 [n, ...] and, where the family has it,
            ``image_grid_thw`` int64 [n, images, 3].

        Raises:
            TypeError: if the images are not uint8.
            ValueError: if a prompt is too long, or the tokenizer does not keep image tokens whole.
        """
        rows = []
        for text, pictures in zip(instructions, images, strict=True):
            seen = self._picture(pictures)
            rows.append({**self._prompt(text, seen, len(pictures)), **seen})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def tokens_of(self, instruction: str, counts: Sequence[int]) -> list[int]:
        """The prompt's token ids, without padding, with `counts` image tokens of each image."""
        shown = [self.family.picture.format(tokens=self.image_token * n) for n in counts]
        text = self.prompt.replace("{image}", "".join(shown))
        text = text.replace("{instruction}", instruction)
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _picture(self, pictures: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        for picture in pictures:
            if picture.dtype != torch.uint8:
                raise TypeError(f"images must be uint8 in 0..255, got {picture.dtype}.")
        listed: list[Any] = [picture.cpu().numpy() for picture in pictures]
        found = self.image_processor(
            [listed] if self.family.nested else listed,
            return_tensors="pt",
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_first",
            **self.image_options,
        )
        pixels = found["pixel_values"][0] if self.family.nested else found["pixel_values"]
        out = {"pixel_values": pixels.to(torch.uint8)}
        if self.family.grid:
            out["image_grid_thw"] = found["image_grid_thw"].long()
        return out

    def _prompt(
        self, instruction: str, seen: Mapping[str, Tensor], pictures: int
    ) -> dict[str, Tensor]:
        batch = {name: value[None] if self.family.nested else value for name, value in seen.items()}
        counts = self.family.tokens(self.config, self.image_processor, batch)
        if len(counts) != pictures:
            raise ValueError(
                f"the image processor made {len(counts)} tiles of {pictures} images: splitting "
                "images is not supported, call it with do_image_splitting=False."
            )
        instruction = normal_sentence(instruction)
        grid = seen.get("image_grid_thw")
        places = None if grid is None else tuple(grid.flatten().tolist())
        key = (instruction, tuple(counts), places)
        if key in self._prompts:
            return self._prompts[key]
        ids = torch.tensor(self.tokens_of(instruction, counts))
        found = int((ids == self.image_token_id).sum())
        if found != sum(counts):
            raise ValueError(
                f"the prompt has {found} image tokens {self.image_token!r} after tokenization, and "
                f"the model writes {sum(counts)} features into them: the tokenizer does not keep "
                "that token whole. Take the processor that was saved with the model."
            )
        rest = len(ids) - found
        if rest > self.prompt_tokens:
            raise ValueError(
                f"the prompt of the instruction {instruction!r} has {rest} tokens besides those of "
                f"the image, and prompt_tokens is {self.prompt_tokens}: raise it, or shorten the "
                "prompt."
            )
        merge = getattr(self.image_processor, "merge_size", 1)
        positions = self.family.positions(ids, self.image_token_id, grid, merge)
        padding = self.prompt_tokens - rest
        fill = self.tokenizer.pad_token_id or 0
        pad = torch.nn.functional.pad
        self._prompts[key] = {
            "input_ids": pad(ids, (padding, 0), value=fill),
            "attention_mask": torch.arange(padding + len(ids)) >= padding,
            "position_ids": pad(positions, (padding, 0)),
        }
        return self._prompts[key]
