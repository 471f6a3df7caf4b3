"""Instructions as CLIP's tokens."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs.transforms import Transform

from rftf_torchrl import keys
from rftf_torchrl.files import write_inside
from rftf_torchrl.leftovers import temporary_folder
from rftf_torchrl.nets.entries import required
from rftf_torchrl.nets.sentences import normal_sentence, sentences_of, words_of
from rftf_torchrl.optional import transformers_module
from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig
from rftf_torchrl.paper_policies.blocks.inputs import CLIP_TOKENS

TOKENIZER_FILES = ("vocab.json", "merges.txt")


class ClipTokens(Transform):
    """Writes the tokens of ``"language_instruction"``, int64 [*B, context], zero after the end.

    Args:
        config: the text tower's sizes.
        files: CLIP's tokenizer, by file name; see :func:`tokenizer_files`. Without them, words are
            hashed into the vocabulary, which is enough for encoders that were not pretrained.
    """

    def __init__(self, config: ClipTextConfig, files: Mapping[str, bytes] | None = None) -> None:
        super().__init__(in_keys=[keys.INSTRUCTION_TEXT], out_keys=[CLIP_TOKENS])
        self.config = config
        self.files = dict(files or {})
        self._tokenizer: Any = None
        self._encoded: dict[str, Tensor] = {}

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        why = (
            ", so there is no instruction to tokenize for CLIP: the environment or the data must "
            "hold the instruction."
        )
        entry = required(next_tensordict, keys.INSTRUCTION_TEXT, why)
        batch = next_tensordict.batch_size
        texts = sentences_of(entry, keys.INSTRUCTION_TEXT)
        if len(texts) != batch.numel():
            raise ValueError(
                f"{keys.INSTRUCTION_TEXT!r} has {len(texts)} instructions, but the batch size "
                f"{tuple(batch)} needs {batch.numel()}."
            )
        rows = [self.encode(text) for text in texts] or [torch.zeros(0, dtype=torch.int64)]
        tokens = torch.cat(rows).reshape(*batch, self.config.context)
        return next_tensordict.set(CLIP_TOKENS, tokens.to(next_tensordict.device or "cpu"))

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._call(tensordict_reset)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes the tokens, unless the data hold them."""
        return tensordict if CLIP_TOKENS in tensordict.keys(True) else self._call(tensordict)

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Adds the tokens."""
        observation_spec[CLIP_TOKENS] = Unbounded(
            shape=(*observation_spec.shape, self.config.context),
            dtype=torch.int64,
            device=observation_spec.device,
        )
        return observation_spec

    def encode(self, text: str) -> Tensor:
        """The tokens of one instruction, int64 [context].

        Raises:
            ValueError: if it is empty or too long.
        """
        text = normal_sentence(text)
        if text not in self._encoded:
            config = self.config
            words = self._words(text)
            if not words or len(words) > config.context - 2:
                raise ValueError(
                    f"the instruction {text!r} has {len(words)} tokens, expected 1 to "
                    f"{config.context - 2}: shorten it, or give the task one."
                )
            row = torch.zeros(config.context, dtype=torch.int64)
            row[: len(words) + 2] = torch.tensor([config.start_token, *words, config.end_token])
            self._encoded[text] = row
        return self._encoded[text]

    def _words(self, text: str) -> list[int]:
        if not self.files:
            number = self.config.vocab_size - 3
            return [1 + zlib.crc32(word.encode()) % number for word in words_of(text)]
        if self._tokenizer is None:
            tokenizer_class = transformers_module("CLIP's tokenizer").CLIPTokenizer
            with temporary_folder() as folder:
                write_inside(folder, self.files)
                self._tokenizer = tokenizer_class.from_pretrained(folder)
        ids = self._tokenizer(text)["input_ids"]
        return [number for number in ids if number < self.config.start_token]


def tokenizer_files(folder: str) -> dict[str, bytes]:
    """CLIP's tokenizer in a folder.

    Raises:
        FileNotFoundError: if one of its two files is missing.
    """
    missing = [name for name in TOKENIZER_FILES if not Path(folder, name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"no CLIP tokenizer in {folder}: {' and '.join(missing)} missing. Download "
            "openai/clip-vit-base-patch32 into a folder first."
        )
    return {name: Path(folder, name).read_bytes() for name in TOKENIZER_FILES}
