"""Evaluate a state-value module once per distinct state of a batch of transitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl.keys import TEMPORAL_VALUE, VLA_INPUTS, nested_keys
from rftf_torchrl.nets.entries import NO_COMPACT_OBS


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put ``module`` in evaluation mode, then give every submodule back the flag it had."""
    flags = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in flags:
            child.training = training


def policy_device(module: nn.Module) -> torch.device:
    """Where a module's first parameter is; the CPU if it has none."""
    parameter = next(iter(module.parameters()), None)
    return torch.device("cpu") if parameter is None else parameter.device


def evaluate_states(
    module: TensorDictModuleBase,
    states: TensorDictBase,
    *,
    out_key: NestedKey = TEMPORAL_VALUE,
    chunk_size: int = 256,
) -> Tensor:
    """Run a state-value module over a flat batch of states, frozen and in bounded memory.

    Args:
        module: maps its ``in_keys`` to ``out_key``, shape [n, 1], on its parameters' device.
        states: tensordict of shape [n] that holds ``module.in_keys``.
        out_key: the key that ``module`` writes.
        chunk_size: most states in one forward.

    Returns:
        float32 [n, 1], on the device of ``states``' tensors.

    Raises:
        ValueError: ``chunk_size`` is below 1, or the module's output is not [n, 1].
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 state per forward, got {chunk_size}.")
    parameter = next(module.parameters(), None)
    home = next(iter(states.values(True, True))).device
    values = [torch.empty(0, 1, device=home)]
    with torch.no_grad(), eval_mode(module):
        for chunk in states.split(chunk_size) if len(states) else ():
            value = module(chunk if parameter is None else chunk.to(parameter.device)).get(out_key)
            if value is None or value.shape != (len(chunk), 1):
                got = "nothing" if value is None else f"shape {tuple(value.shape)}"
                raise ValueError(
                    f"The module must write {out_key!r} with shape ({len(chunk)}, 1), one value "
                    f"per state, but wrote {got}. Its out_keys are {list(module.out_keys)}."
                )
            values.append(value.to(home, torch.float32))
    return torch.cat(values)


@nested_keys
def values_of_states(
    module: TensorDictModuleBase,
    tensordict: TensorDictBase,
    *,
    out_key: NestedKey = TEMPORAL_VALUE,
    chunk_size: int = 256,
) -> tuple[Tensor, Tensor]:
    """Return V(s_t) and V(s_{t+1}) of transitions with one forward per distinct state.

    Every root state is evaluated; the next state of transition t only if it differs, in any
    entry of any of its keys, from the root state of transition t + 1 along the last batch
    dimension. A trajectory of T transitions in time order thus costs T + 1 evaluations instead of
    2 T, and any other layout is still right: shuffled transitions cost 2 T.

    Gradients are off, dropout is off, and the training flags come back as they were.

    Args:
        module: maps its ``in_keys``, which make up a state, to ``out_key``, shape [*B, 1]. It runs
            on the device of its first parameter.
        tensordict: transitions of shape [*B] with the states at the root and under ``"next"``. A
            key that is absent under ``"next"`` (an instruction, say) is taken from the root.
        out_key: the key that ``module`` writes.
        chunk_size: most states in one forward, which bounds the peak memory.

    Returns:
        ``(value, next_value)``, both float32 [*B, 1] on the device of the data.

    Raises:
        KeyError: ``"next"`` or a key of the module is missing, or under ``"next"`` all of them
            are, or one of a policy's inputs (``"vla_inputs"``).
        TypeError: a key of the module does not hold a tensor.
        ValueError: the module reads nothing, ``chunk_size`` is below 1, or what the module writes
            is not one value per state.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> module = TensorDictModule(lambda x: 2 * x, in_keys=["x"], out_keys=["temporal_value"])
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> data = TensorDict({"x": x[:-1], "next": {"x": x[1:]}}, [3])
        >>> value, next_value = values_of_states(module, data)
        >>> value.squeeze(-1).tolist(), next_value.squeeze(-1).tolist()
        ([0.0, 2.0, 4.0], [2.0, 4.0, 6.0])
    """
    batch = tensordict.batch_size
    root, following, repeated = _flat_states(tensordict, list(module.in_keys), chunk_size)
    same = torch.zeros(batch if len(batch) else (1,), dtype=torch.bool, device=repeated.device)
    same[..., :-1] = repeated.view(same.shape)[..., :-1]
    same = same.reshape(-1)

    evaluate = partial(evaluate_states, module, out_key=out_key, chunk_size=chunk_size)
    value = evaluate(root)
    next_value = value.roll(-1, 0)
    fresh = (~same).nonzero().squeeze(-1)
    for rows in fresh.split(chunk_size) if len(fresh) else ():
        next_value[rows] = evaluate(following[rows])
    return value.reshape(*batch, 1), next_value.reshape(*batch, 1)


def _names(keys: Iterable[NestedKey]) -> str:
    return ", ".join(sorted(map(str, keys)))


def _flat_states(
    tensordict: TensorDictBase, keys: list[NestedKey], chunk_size: int
) -> tuple[TensorDict, TensorDict, Tensor]:
    """Flatten root and next states to [n], and tell which next states repeat the row below."""
    if not keys:
        raise ValueError("The module has no in_keys, so there is no state to read.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 state per forward, got {chunk_size}.")
    following = tensordict.get("next", None)
    if following is None:
        raise KeyError(
            f"'next' is missing; the tensordict has {_names(tensordict.keys())}. "
            "Pass transitions: states at the root and their successors under 'next'."
        )
    n = tensordict.batch_size.numel()
    flat: tuple[dict[NestedKey, Tensor], dict[NestedKey, Tensor]] = ({}, {})
    absent = [key for key in keys if following.get(key, None) is None]
    if len(absent) == len(keys) or any(VLA_INPUTS in key for key in absent):
        advice = NO_COMPACT_OBS
        if any(VLA_INPUTS in key for key in absent):
            advice = (
                "run_episodes leaves out there what a PolicyInputEnv writes for the policy; where "
                "the value module reads it too, let the environment be TransformedEnv(env, "
                "spec.observation_transform())."
            )
        raise KeyError(
            f"{_names(absent)} missing under 'next', so that the next state would pass for the "
            f"state itself: V(s') = V(s). {advice}"
        )
    for key in keys:
        here = tensordict.get(key, None)
        if here is None:
            raise KeyError(
                f"{key!r} is missing from the root of the tensordict, but the value module reads "
                f"it. The keys are {_names(tensordict.keys(True, True))}."
            )
        there = following.get(key, None)
        there = here if there is None else there
        for side, entry in zip(flat, (here, there), strict=True):
            if not isinstance(entry, Tensor):
                raise TypeError(
                    f"{key!r} holds a {type(entry).__name__}, but a value module can only read "
                    "tensors. Turn instruction strings into tokens with InstructionTokens."
                )
            side[key] = entry.reshape(n, *entry.shape[tensordict.batch_dims :])
    repeated = torch.ones(n, dtype=torch.bool, device=flat[0][keys[0]].device)
    for start in range(0, n - 1, chunk_size):
        stop = min(start + chunk_size, n - 1)
        for key in keys:
            equal = flat[1][key][start:stop] == flat[0][key][start + 1 : stop + 1]
            repeated[start:stop] &= equal.reshape(stop - start, -1).all(-1).to(repeated.device)
    return TensorDict(flat[0], [n]), TensorDict(flat[1], [n]), repeated
