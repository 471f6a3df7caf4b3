"""Turn instruction strings into token tensors as early as possible."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Categorical, Composite, Unbounded

from rftf_torchrl.keys import INSTRUCTION_TEXT, TOKEN_MASK, TOKENS, nested_keys
from rftf_torchrl.nets.entries import required
from rftf_torchrl.nets.observation_writer import ObservationWriter
from rftf_torchrl.nets.sentences import sentences_of, words_of


@dataclass(frozen=True)
class HashTokenizer:
    """Map words to ids by hashing, so that there is no vocabulary to build, ship or keep in step.

    id(word) = 1 + crc32(word) mod (vocab_size - 1), with words in lower case and without leading
    and trailing punctuation; 0 is padding. However an instruction was typed (Unicode form, quotes,
    dashes, white space, byte-order mark), its tokens are the same. Two words may share an id (the
    hashing trick, Weinberger et al. 2009, arXiv 0902.2206): with the 1023 ids of the default and a
    task suite's hundred words, a few do. Raise ``vocab_size`` where that matters.

    Args:
        vocab_size: number of ids including padding, at least 2.
        max_length: words per instruction; shorter ones are padded.

    Raises:
        ValueError: an argument is too small.

    Example:
        >>> tokens, mask = HashTokenizer(max_length=4)(["Open the drawer.", "push"])
        >>> tokens.shape, mask.tolist()
        (torch.Size([2, 4]), [[True, True, True, False], [True, False, False, False]])
    """

    vocab_size: int = 1024
    max_length: int = 16

    def __post_init__(self) -> None:
        if self.vocab_size < 2:
            raise ValueError(
                f"vocab_size must be at least 2 (padding and one word), got {self.vocab_size}."
            )
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1 word, got {self.max_length}.")

    def __call__(self, instructions: str | Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode n instructions (a single string counts as n = 1).

        Returns:
            tokens int64 [n, max_length], and mask bool [n, max_length], True at real words.

        Raises:
            ValueError: an instruction has no word, or more than ``max_length``.
        """
        texts = [instructions] if isinstance(instructions, str) else list(instructions)
        tokens = torch.zeros(len(texts), self.max_length, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = [1 + zlib.crc32(w.encode()) % (self.vocab_size - 1) for w in words_of(text)]
            _check_length(ids, text, self.max_length)
            row[: len(ids)] = torch.tensor(ids)
        return tokens, tokens != 0


class InstructionTokens(ObservationWriter):
    """Write an instruction's tokens beside its string, so that nothing downstream reads the string.

    Strings are silently corrupted by process-based collectors and shared storages, and are slow;
    token tensors are neither. Each distinct string is tokenized once. Unlike TorchRL's
    ``Tokenizer``, every batch gets the same length and any tokenizer will do. Works on an
    environment (reset and step), on a replay buffer and as a collector's ``postproc``.

    Args:
        tokenizer: maps a list of n strings to ``(tokens [n, L], mask [n, L])``, or, like those of
            ``transformers``, to a mapping with ``input_ids`` and ``attention_mask``;
            :class:`HashTokenizer` if None.
        max_length: L; ``tokenizer.max_length`` if None. Shorter encodings are padded on the right
            with ``tokenizer.pad_token_id`` (0 if it has none).
        in_key: the string.
        tokens_key: int64 [*B, L], written.
        mask_key: bool [*B, L], written; True at real tokens.

    Raises:
        ValueError: the length is not known; on use, an instruction is empty or too long.
        KeyError: on use, the string is missing.
        TypeError: on use, the entry is not a string.

    Example:
        >>> from torchrl.envs import TransformedEnv
        >>> from torchrl.envs.custom import ToyVLAEnv
        >>> env = TransformedEnv(ToyVLAEnv(), InstructionTokens(HashTokenizer(max_length=8)))
        >>> env.reset()["instruction", "mask"].tolist()
        [True, True, True, True, True, True, True, False]
    """

    @nested_keys
    def __init__(
        self,
        tokenizer: Callable[[list[str]], Any] | None = None,
        *,
        max_length: int | None = None,
        in_key: NestedKey = INSTRUCTION_TEXT,
        tokens_key: NestedKey = TOKENS,
        mask_key: NestedKey = TOKEN_MASK,
    ) -> None:
        super().__init__(in_keys=[in_key], out_keys=[tokens_key, mask_key])
        self.tokenizer = HashTokenizer() if tokenizer is None else tokenizer
        length = getattr(self.tokenizer, "max_length", None) if max_length is None else max_length
        if length is None:
            raise ValueError(
                f"{type(self.tokenizer).__name__} has no max_length. Give max_length, the number "
                "of tokens that every instruction is padded to."
            )
        self.max_length = int(length)
        self._encoded: dict[str, tuple[Tensor, Tensor]] = {}

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add the tokens and their mask."""
        shape = (*observation_spec.shape, self.max_length)
        device = observation_spec.device
        tokens_key, mask_key = self.out_keys
        observation_spec[tokens_key] = Unbounded(shape=shape, dtype=torch.int64, device=device)
        observation_spec[mask_key] = Categorical(2, shape=shape, dtype=torch.bool, device=device)
        return observation_spec

    def _write(self, tensordict: TensorDictBase) -> TensorDictBase:
        in_key = self.in_keys[0]
        why = (
            ", so there is no instruction to tokenize. The environment must write it at every "
            "reset and step; in_key= names another entry."
        )
        texts = sentences_of(required(tensordict, in_key, why), in_key)
        encoded = [self._encode(text) for text in texts]
        shape = tensordict.batch_size
        if len(encoded) != shape.numel():
            raise ValueError(
                f"{in_key!r} has {len(encoded)} instructions, but the batch size {tuple(shape)} "
                f"needs {shape.numel()}."
            )
        for i, out_key in enumerate(self.out_keys):
            dtype = (torch.int64, torch.bool)[i]
            rows = [pair[i] for pair in encoded]
            out = torch.stack(rows) if rows else torch.zeros(0, self.max_length, dtype=dtype)
            out = out.reshape(*shape, self.max_length)
            tensordict.set(out_key, out if tensordict.device is None else out.to(tensordict.device))
        return tensordict

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        if text not in self._encoded:
            output = self.tokenizer([text])
            if isinstance(output, Mapping):
                ids = torch.as_tensor(output["input_ids"])[0]
                mask = torch.as_tensor(output.get("attention_mask", [[1] * len(ids)]))[0]
            else:
                ids, mask = output[0][0], output[1][0]
            real = ids[mask.bool()].tolist()
            _check_length(real, text, self.max_length)
            padding = getattr(self.tokenizer, "pad_token_id", None) or 0
            tokens = torch.tensor(real + [padding] * (self.max_length - len(real)))
            self._encoded[text] = tokens, torch.arange(self.max_length) < len(real)
        return self._encoded[text]


def _check_length(ids: list[int], text: str, max_length: int) -> None:
    if not ids:
        raise ValueError(f"The instruction {text!r} has no word. Give every task an instruction.")
    if len(ids) > max_length:
        raise ValueError(
            f"The instruction {text!r} has {len(ids)} tokens, but max_length is {max_length}. "
            "Raise max_length, or shorten the instruction."
        )
