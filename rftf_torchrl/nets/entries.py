"""Entries that have to be there."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torchrl.data import Composite
from torchrl.envs.transforms import Transform


def required(source: TensorDictBase | Composite, key: NestedKey, why: str) -> Any:
    """The entry, or a KeyError that goes on with why it is needed."""
    entry = source.get(key, None)
    if entry is None:
        raise KeyError(f"{key!r} is missing{why}")
    return entry


def state_and_observation(
    transform: Transform, input_spec: Composite
) -> tuple[Composite, Composite]:
    """The spec of the state, a new one where there is none, and that of the observation."""
    state = input_spec["full_state_spec"]
    if state is None:
        state = Composite(shape=input_spec.shape, device=input_spec.device)
    parent = transform.parent
    assert parent is not None  # TorchRL asks for specs of a transform inside an environment
    return state, parent.observation_spec
