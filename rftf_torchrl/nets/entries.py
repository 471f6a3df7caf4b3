"""Entries that have to be there."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.data import Composite
from torchrl.envs.transforms import Transform

from rftf_torchrl.keys import STATE_VALUE

NO_COMPACT_OBS = (
    "Collectors with compact_obs=True leave out what the next state shows: build yours with "
    "compact_obs=False."
)


def required(source: TensorDictBase | Composite, key: NestedKey, why: str) -> Any:
    """The entry, or a KeyError that goes on with why it is needed."""
    entry = source.get(key, None)
    if entry is None:
        raise KeyError(f"{key!r} is missing{why}")
    return entry


def written_value(module: TensorDictModuleBase, value_key: NestedKey) -> NestedKey:
    """Where a value model writes: to the key, or as TorchRL's ``ValueOperator``.

    Raises:
        ValueError: if to neither.
    """
    for key in (value_key, STATE_VALUE):
        if key in module.out_keys:
            return key
    raise ValueError(
        f"value_key {value_key!r} is not among the value model's out_keys {list(module.out_keys)}."
    )


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
