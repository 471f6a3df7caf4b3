"""What MuJoCo says of physics that became unstable."""

from __future__ import annotations

from rftf_torchrl.optional import metaworld_module


def warnings_of_unstable_physics() -> list[int]:
    """The numbers of MuJoCo's warnings that the physics became unstable.

    MuJoCo then puts the scene back to its start, and the episode would continue from there
    unnoticed. The counters ``data.warning.number`` since the reset show it.
    """
    of = metaworld_module("mujoco").mjtWarning
    kinds = (of.mjWARN_BADQPOS, of.mjWARN_BADQVEL, of.mjWARN_BADQACC)
    return [kind.value for kind in kinds]
