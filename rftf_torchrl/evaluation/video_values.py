"""The values of frames that come from a video, shown as the model was trained on."""

from __future__ import annotations

from functools import lru_cache

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.data.readers.pictures import resized
from rftf_torchrl.evaluation.video import check_frames
from rftf_torchrl.nets.evaluate_states import evaluate_states
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer
from rftf_torchrl.values.temporal_value import TemporalValueModel

_OF_A_VIDEO = (keys.IMAGE, keys.TOKENS, keys.TOKEN_MASK)


class VideoValues:
    """Shows frames and an instruction to a value model.

    Args:
        model: writes the value of a state, float [*B, 1], to its first ``out_keys``.
        image_size: edge of the square to which frames are resized, in pixels; by default that of
            the images that the model was trained on, and where that is not known, frames stay as
            they are.
        max_words: longest instruction; by default as the model was trained.

    Attributes:
        image_size: as above.
        tokenizer: of the instructions.

    Raises:
        ValueError: where the model reads something that a video does not have.
    """

    def __init__(
        self,
        model: TensorDictModuleBase,
        *,
        image_size: int | None = None,
        max_words: int | None = None,
    ) -> None:
        missing = [key for key in model.in_keys if key not in _OF_A_VIDEO]
        if missing:
            raise ValueError(
                f"the value model reads {', '.join(map(repr, missing))}, which a video does not "
                "have: train one on images and instructions alone (data=..., or env.image_size=64)"
            )
        trained = model if isinstance(model, TemporalValueModel) else None
        if image_size is None and trained is not None:
            image_size = trained.image_size
        if max_words is None and trained is not None:
            max_words = trained.max_words
        self.model, self.image_size = model, image_size
        self.tokenizer = HashTokenizer(max_length=max_words or HashTokenizer.max_length)
        self._tokens = lru_cache(maxsize=1024)(self.tokenizer)

    def can_read(self, sentence: str) -> bool:
        """Whether an instruction has words, and not too many."""
        try:
            self._tokens(sentence)
        except ValueError:
            return False
        return True

    def knows(self, sentence: str) -> bool:
        """Whether the model is calibrated for an instruction, or for all alike."""
        if not isinstance(self.model, TemporalValueModel):
            return True
        tokens, _ = self._tokens(sentence)
        return bool(self.model.calibration.knows(tokens.to(self.model.calibration.tokens.device)))

    def __call__(self, frames: Tensor, sentence: str) -> Tensor:
        """The values.

        Args:
            frames: uint8 [T, 3, h, w].
            sentence: the instruction.

        Returns:
            float32 [T], on the CPU.

        Raises:
            TypeError: if the frames are not uint8.
            ValueError: if they have another shape, the instruction has no word or too many, or a
                value is not finite.
        """
        check_frames(frames, "frames")
        tokens, mask = (part.expand(len(frames), -1) for part in self._tokens(sentence))
        shown = TensorDict(
            {
                keys.IMAGE: resized(frames, self.image_size),
                keys.TOKENS: tokens,
                keys.TOKEN_MASK: mask,
            },
            batch_size=[len(frames)],
        )
        values = evaluate_states(self.model, shown, out_key=self.model.out_keys[0]).flatten()
        if not torch.isfinite(values).all():
            raise ValueError(f"its values under {sentence!r} are not all finite")
        return values
