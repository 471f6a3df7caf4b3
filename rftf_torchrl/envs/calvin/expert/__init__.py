"""A privileged scripted expert for CALVIN: demonstrations without a download."""

from rftf_torchrl.envs.calvin.expert.expert import CalvinExpert
from rftf_torchrl.envs.calvin.expert.feasible import feasible
from rftf_torchrl.envs.calvin.expert.geometry import SceneGeometry, scene_geometry
from rftf_torchrl.envs.calvin.expert.record import (
    ChainToRecord,
    RecordedTask,
    record_chain,
    record_chains,
)
from rftf_torchrl.envs.calvin.expert.walk import walk_chain

__all__ = [
    "CalvinExpert",
    "ChainToRecord",
    "RecordedTask",
    "SceneGeometry",
    "feasible",
    "record_chain",
    "record_chains",
    "scene_geometry",
    "walk_chain",
]
