"""From the environment's observation to what a LeRobot policy reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import NonTensorData, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite, Unbounded

from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.entries import required
from rftf_torchrl.nets.observation_writer import ObservationWriter
from rftf_torchrl.nets.sentences import sentences_of
from rftf_torchrl.policies.lerobot.actor import batch_key

_ADVICE = (
    ", and the LeRobot policy reads it: the environment must write it, or LeRobotSpec.inputs must "
    "name another entry."
)


class LeRobotObservation(ObservationWriter):
    """Writes the entries of LeRobot's batch, by LeRobot's own preprocessor.

    Images, uint8 [*B, 3, H, W], become float32 in 0..1; then LeRobot normalises, adds and
    tokenises. ``"observation.images.top"`` goes to ``("lerobot", "observation", "images",
    "top")``. Works on an environment (reset and step), on a replay buffer and on a batch.

    Args:
        inputs: name in LeRobot's batch -> key of our observation.
        names: the entries of LeRobot's batch that the policy reads.
        text_key: key of the instruction's text; None where the policy reads none.
        processors: makes LeRobot's preprocessor and postprocessor, on first use.

    Raises:
        KeyError: on use, if an entry is missing.
        ValueError: on use, if floating images are not in 0..1.

    Examples:
        >>> _ = __import__("pytest").importorskip("lerobot")
        >>> from tensordict import TensorDict
        >>> from rftf_torchrl import LeRobotSpec
        >>> state = {"type": "STATE", "shape": [3]}
        >>> config = {"type": "act", "input_features": {"observation.state": state}}
        >>> stats = {"observation.state": {"mean": [1.0] * 3, "std": [2.0] * 3}}
        >>> spec = LeRobotSpec(config, {"observation.state": "joints"}, stats)
        >>> data = spec.observation_transform()(TensorDict({"joints": torch.full((3,), 4.0)}))
        >>> data["lerobot", "observation", "state"]
        tensor([1.5000, 1.5000, 1.5000])
    """

    @nested_keys
    def __init__(
        self,
        inputs: Mapping[str, NestedKey],
        names: Sequence[str],
        text_key: str | None,
        processors: Callable[[], tuple[Any, Any]],
    ) -> None:
        super().__init__(
            in_keys=list(inputs.values()), out_keys=[batch_key(name) for name in names]
        )
        self.inputs, self.names, self.text_key = inputs, names, text_key
        self.processors = processors
        self._preprocess: Any = None

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add the entries."""
        example = observation_spec.zero()
        if self.text_key is not None:
            example.set(self.text_key, NonTensorData("text", batch_size=example.batch_size))
        self._write(example)
        for key in self.out_keys:
            value = example.get(key)
            observation_spec[key] = Unbounded(
                shape=value.shape, dtype=value.dtype, device=observation_spec.device
            )
        return observation_spec

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_preprocess": None}

    def _write(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self._preprocess is None:
            self._preprocess = self.processors()[0]
        shape = tensordict.batch_size
        batch: dict[str, Any] = {
            name: _as_batch(required(tensordict, key, _ADVICE), shape, key)
            for name, key in self.inputs.items()
        }
        if self.text_key is not None:
            entry = required(tensordict, self.text_key, _ADVICE)
            batch["task"] = sentences_of(entry, self.text_key)
        done = self._preprocess(batch)
        for name in self.names:
            value = done[name]
            if "attention_mask" in name:
                value = value.bool()
            value = value.reshape(*shape, *value.shape[1:])
            tensordict.set(
                batch_key(name),
                value if tensordict.device is None else value.to(tensordict.device),
            )
        return tensordict


def _as_batch(value: Tensor, shape: torch.Size, key: NestedKey) -> Tensor:
    value = value.reshape(shape.numel(), *value.shape[len(shape) :])
    if value.dtype == torch.uint8:
        return value.float() / 255
    if value.ndim > 3 and value.numel() and not 0 <= float(value.min()) <= float(value.max()) <= 1:
        raise ValueError(
            f"{key!r} holds images of {value.dtype} from {float(value.min()):g} to "
            f"{float(value.max()):g}, expected uint8 in 0..255, or floating numbers in 0..1."
        )
    return value.float()
