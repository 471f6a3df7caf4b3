"""Where a transform stands: what is after it in its environment, and the data's ``"next"``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.transforms import Compose, Transform, TransformedEnv

from rftf_torchrl.nets.entries import required


def environment_transforms(transform: Transform) -> list[Transform]:
    """All transforms of the ``TransformedEnv`` that a transform is in, itself included."""
    return [] if transform.container is None else list(_leaves(transform.container.transform))


def later_transforms(transform: Transform) -> list[Transform]:
    """Those that see a step after it."""
    leaves = environment_transforms(transform)
    places = [place for place, leaf in enumerate(leaves) if leaf is transform]
    return leaves[places[0] + 1 :] if places else []


def resets_inside_a_step(transform: Transform) -> bool:
    """Whether the environment begins the next episode inside a step (native auto-reset)."""
    environment: Any = transform.container
    while isinstance(environment, TransformedEnv):
        if environment.__dict__.get("_torchrl_native_autoreset", False):
            return True
        environment = environment.base_env
    return bool(vars(environment).get("_torchrl_native_autoreset", False)) if environment else False


def next_data(transform: Transform, tensordict: TensorDictBase) -> TensorDictBase:
    """The data at t + 1.

    Raises:
        KeyError: if there is none.
    """
    why = (
        f": {type(transform).__name__} needs transitions, with success, terminated and the next "
        "state under 'next'."
    )
    following: TensorDictBase = required(tensordict, "next", why)
    return following


def trajectory_lengths(trajectory: Tensor, key: NestedKey, why: str) -> list[int]:
    """Steps of each trajectory, int64 [N] in, each trajectory in one piece.

    Raises:
        ValueError: if steps of a trajectory are apart.
    """
    pieces, lengths = trajectory.reshape(-1).unique_consecutive(return_counts=True)
    if len(pieces) != len(pieces.unique()):
        raise ValueError(
            f"the steps of a trajectory are not one after another in {key!r}, and {why}: do this "
            "to a collector's batch (traj_format='cat'), before the steps are shuffled."
        )
    return list(map(int, lengths.tolist()))


def _leaves(transform: Transform) -> Iterator[Transform]:
    if isinstance(transform, Compose):
        for part in transform.transforms:
            yield from _leaves(part)
    else:
        yield transform
