"""The transform that runs a model's processor where observations enter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs.transforms import Transform

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.entries import required
from rftf_torchrl.nets.sentences import sentences_of

_ADVICE = (
    ", and the policy's processor reads it: environments write 'language_instruction' with "
    "write_text=True, and images with an image_size, those of CALVIN's gripper camera with a "
    "wrist_size."
)


class VLAInputs(Transform):
    """Writes what a vision-language-action policy reads, once for each observation.

    Append it to an environment that writes the instruction's string, or call it on a batch of
    demonstrations. Images and instruction stay as they are, for the value model and the critic; the
    policy reads tensors alone.

    Args:
        processor: maps images, uint8 [n, images, 3, h, w], and n instructions to named tensors
            [n, ...], each of the same shape for every instruction, like :class:`VLAProcessor`.
            Where the cameras' sizes differ, it is given the images as n lists of [3, h, w].
        image_keys: the images of an observation, uint8 [*B, 3, h, w].
        instruction_key: the instruction.
        out_key: where the tensors go, as (out_key, name).

    Raises:
        KeyError: on use, if an image or the instruction is missing.
        ValueError: on use, if there are not as many instructions as observations.

    Example:
        >>> def processor(images, texts):
        ...     return {"length": torch.tensor([[len(text)] for text in texts])}
        >>> data = TensorDict({"observation": {"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}})
        >>> data["language_instruction"] = "open"
        >>> VLAInputs(processor)(data)["vla_inputs", "length"]
        tensor([4])
    """

    @nested_keys
    def __init__(
        self,
        processor: Callable[[Any, Sequence[str]], Mapping[str, Tensor]],
        *,
        image_keys: Sequence[NestedKey] = (keys.IMAGE,),
        instruction_key: NestedKey = keys.INSTRUCTION_TEXT,
        out_key: NestedKey = keys.VLA_INPUTS,
    ) -> None:
        super().__init__(in_keys=[*image_keys, instruction_key], out_keys=[out_key])
        self.processor = processor

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        return self._write(next_tensordict)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._write(tensordict_reset)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the tensors of a batch of observations."""
        return self._write(tensordict)

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add the tensors, whose shapes an image of the environment's size tells."""
        batch = observation_spec.shape
        images = [
            torch.zeros(1, *required(observation_spec, key, _ADVICE).shape[len(batch) :]).byte()
            for key in self.in_keys[:-1]
        ]
        example = self.processor(_together(images), ["move"])
        observation_spec[self.out_keys[0]] = Composite(
            {
                name: Unbounded((*batch, *value.shape[1:]), dtype=value.dtype)
                for name, value in example.items()
            },
            shape=batch,
        )
        return observation_spec

    def _write(self, tensordict: TensorDictBase) -> TensorDictBase:
        shape = tensordict.batch_size
        *image_keys, instruction_key = self.in_keys
        images = [required(tensordict, key, _ADVICE) for key in image_keys]
        flat = [image.reshape(-1, *image.shape[len(shape) :]) for image in images]
        texts = sentences_of(required(tensordict, instruction_key, _ADVICE), instruction_key)
        if len(texts) != shape.numel():
            raise ValueError(
                f"{instruction_key!r} has {len(texts)} instructions, and the batch size "
                f"{tuple(shape)} needs {shape.numel()}."
            )
        found = self.processor(_together(flat), texts)
        entries = {name: value.reshape(*shape, *value.shape[1:]) for name, value in found.items()}
        out = TensorDict(entries, shape)
        if tensordict.device is not None:
            out = out.to(tensordict.device)
        return tensordict.set(self.out_keys[0], out)


def _together(cameras: list[Tensor]) -> Tensor | list[list[Tensor]]:
    """From [n, 3, h, w] of each camera to [n, cameras, 3, h, w], or to lists if sizes differ."""
    if len({camera.shape for camera in cameras}) == 1:
        return torch.stack(cameras, 1)
    return [list(pictures) for pictures in zip(*cameras, strict=True)]
