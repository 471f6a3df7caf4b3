"""Whether MuJoCo's physics became unstable."""

from __future__ import annotations

from typing import Any

from rftf_torchrl.errors import SimulatorCrashedError
from rftf_torchrl.optional import metaworld_module


def check_physics(data: Any, where: str) -> None:
    """Refuse a simulation that became unstable since its reset.

    MuJoCo answers unstable physics with a warning and puts the scene back to its start, from where
    the episode would go on unnoticed; the warning counters since the reset tell.

    Args:
        data: a ``mujoco.MjData``.
        where: the simulator and task, for the message.

    Raises:
        SimulatorCrashedError: if it did.
    """
    of = metaworld_module("mujoco").mjtWarning
    kinds = (of.mjWARN_BADQPOS, of.mjWARN_BADQVEL, of.mjWARN_BADQACC)
    if any(data.warning[kind.value].number for kind in kinds):
        raise SimulatorCrashedError(f"{where}: unstable physics")
