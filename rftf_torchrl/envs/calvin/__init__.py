"""CALVIN: a table-top simulator with 34 tasks, its oracle, sequences and initial states.

Importing this package needs neither calvin_env nor PyBullet; building a simulator does.
"""

from rftf_torchrl.envs.calvin.install import CalvinNotInstalledError, require_calvin_env
from rftf_torchrl.envs.calvin.simulator import CalvinSimulator, SimulatorCrashedError

__all__ = [
    "CalvinNotInstalledError",
    "CalvinSimulator",
    "SimulatorCrashedError",
    "require_calvin_env",
]
