"""The last module of every actor: from a distribution's parameters to a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensordict.nn import (
    InteractionType,
    ProbabilisticTensorDictModule,
    TensorDictModuleBase,
)
from tensordict.utils import NestedKey
from torch.distributions import Distribution

from rftf_torchrl import keys


def draw_chunk(
    distribution: type[Distribution],
    parameters: Mapping[str, NestedKey],
    constants: Mapping[str, Any] | None = None,
    *,
    chunk_key: NestedKey = keys.CHUNK,
    log_prob_key: NestedKey = keys.LOG_PROB,
    executed_key: NestedKey = keys.EXECUTED,
) -> ProbabilisticTensorDictModule:
    """The module that draws a chunk and writes its log-probability.

    Args:
        distribution: of a chunk; its argument ``executed`` is read where the data have it.
        parameters: key of each of its other parameters in the data.
        constants: its further arguments.
        chunk_key: where the chunk goes.
        log_prob_key: where its log-probability goes.
        executed_key: where the data tell which actions were executed.
    """
    return ProbabilisticTensorDictModule(
        in_keys={**parameters, "executed": executed_key},
        out_keys=[chunk_key],
        distribution_class=distribution,
        distribution_kwargs=dict(constants or {}),
        return_log_prob=True,
        log_prob_key=log_prob_key,
        default_interaction_type=InteractionType.RANDOM,
    )


def check_writes(network: TensorDictModuleBase, *needed: NestedKey) -> None:
    """Refuse a network that does not write what an actor reads.

    Raises:
        ValueError: naming what is missing.
    """
    missing = [key for key in needed if key not in network.out_keys]
    if missing:
        raise ValueError(
            f"the network must write {', '.join(map(repr, missing))}, it writes "
            f"{list(network.out_keys)}: set its out_keys."
        )
