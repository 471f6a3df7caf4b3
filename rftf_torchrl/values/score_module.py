"""Any scorer of batches, LeRobot's reward models among them, as a value model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys

Score: TypeAlias = str | Callable[[Any, dict[str, Tensor]], Tensor]


@nested_keys
def score_module(
    model: nn.Module,
    inputs: Mapping[str, NestedKey],
    *,
    method: Score = "compute_reward",
    out_key: NestedKey = keys.TEMPORAL_VALUE,
) -> TensorDictModule:
    """Makes a value model for :class:`ValueReward` from a model that scores a batch dict.

    The default is the convention of LeRobot's reward models, ``compute_reward(batch) -> (B,)``.
    Where your model takes tensors one by one and returns [*B, 1], a ``TensorDictModule`` is all
    it takes.

    Args:
        model: the model; it is evaluated as it is, and frozen by :class:`ValueReward`.
        inputs: what the batch's entries are called in the model, and under which key the data
            hold them, e.g. ``{"observation.images.top": ("observation", "image")}``. Images,
            uint8 [*B, 3, H, W], become float32 in 0..1.
        method: name of the method that scores, or a function of model and batch.
        out_key: where the score goes, float32 [*B, 1].

    Returns:
        The value model.

    Raises:
        TypeError: if the model has no such method.
        ValueError: on use, if the score is not one number each.

    Examples:
        >>> from tensordict import TensorDict
        >>> class Brightness(nn.Module):
        ...     def compute_reward(self, batch):
        ...         return batch["observation.images.top"].mean((1, 2, 3))
        >>> model = score_module(Brightness(), {"observation.images.top": ("observation", "image")})
        >>> image = torch.full((2, 5, 3, 8, 8), 51, dtype=torch.uint8)
        >>> out = model(TensorDict({"observation": {"image": image}}, [2, 5]))
        >>> out["temporal_value"].shape, round(out["temporal_value"][0, 0].item(), 4)
        (torch.Size([2, 5, 1]), 0.2)
    """
    if isinstance(method, str) and not callable(getattr(model, method, None)):
        raise TypeError(
            f"{type(model).__name__} has no method {method!r}: pass method=, a name or a function "
            "of model and batch."
        )
    return TensorDictModule(
        _BatchScore(model, tuple(inputs), method), in_keys=list(inputs.values()), out_keys=[out_key]
    )


class _BatchScore(nn.Module):
    def __init__(self, model: nn.Module, names: tuple[str, ...], method: Score) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.method = method

    def forward(self, *values: Tensor) -> Tensor:
        # An image has three dimensions of its own, whatever else there is has one.
        dims = [3 if value.dtype == torch.uint8 else 1 for value in values]
        shape = values[0].shape[: values[0].ndim - dims[0]]
        batch = {
            name: _as_batch(value.reshape(shape.numel(), *value.shape[len(shape) :]))
            for name, value in zip(self.names, values, strict=True)
        }
        if isinstance(self.method, str):
            score: Tensor = getattr(self.model, self.method)(batch)
        else:
            score = self.method(self.model, batch)
        if score.shape not in ((shape.numel(),), (shape.numel(), 1)):
            raise ValueError(
                f"the model must score each of {shape.numel()} states by one number, got shape "
                f"{tuple(score.shape)}."
            )
        return score.float().reshape(*shape, 1)


def _as_batch(value: Tensor) -> Tensor:
    return value.float() / 255 if value.dtype == torch.uint8 else value
