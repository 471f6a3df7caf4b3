"""CALVIN: a table-top simulator with 34 tasks, its oracle, sequences and initial states.

Importing this package needs neither calvin_env nor PyBullet; building a simulator does.
"""

from rftf_torchrl.envs.calvin.env import SUBTASK_STEPS, CalvinEnv
from rftf_torchrl.envs.calvin.factory import CalvinFactory
from rftf_torchrl.envs.calvin.fnv import fnv1_32
from rftf_torchrl.envs.calvin.install import CalvinNotInstalledError, require_calvin_env
from rftf_torchrl.envs.calvin.observation import (
    BLOCK_ORDER,
    PRIVILEGED_DIM,
    PROPRIOCEPTION_DIM,
    state_vector,
)
from rftf_torchrl.envs.calvin.rules import outcomes
from rftf_torchrl.envs.calvin.scenes import (
    benchmark_scene,
    initial_scene,
    refuse_test_state,
    training_scene,
)
from rftf_torchrl.envs.calvin.sequences import (
    BENCHMARK_CHAINS,
    CHAIN_LENGTH,
    Chain,
    InitialState,
    benchmark_sequences,
    generate_chains,
    initial_states,
    is_valid_chain,
    starting_states,
    training_sequences,
)
from rftf_torchrl.envs.calvin.settings import SCENES
from rftf_torchrl.envs.calvin.simulator import CalvinSimulator, SimulatorCrashedError
from rftf_torchrl.envs.calvin.starts import default_states
from rftf_torchrl.envs.calvin.states import StateBank, collect_states
from rftf_torchrl.envs.calvin.tasks import BLOCKS, TASKS, CalvinTask, get_task, load_sentences

__all__ = [
    "BENCHMARK_CHAINS",
    "BLOCKS",
    "BLOCK_ORDER",
    "CHAIN_LENGTH",
    "PRIVILEGED_DIM",
    "PROPRIOCEPTION_DIM",
    "SCENES",
    "SUBTASK_STEPS",
    "TASKS",
    "CalvinEnv",
    "CalvinFactory",
    "CalvinNotInstalledError",
    "CalvinSimulator",
    "CalvinTask",
    "Chain",
    "InitialState",
    "SimulatorCrashedError",
    "StateBank",
    "benchmark_scene",
    "benchmark_sequences",
    "collect_states",
    "default_states",
    "fnv1_32",
    "generate_chains",
    "get_task",
    "initial_scene",
    "initial_states",
    "is_valid_chain",
    "load_sentences",
    "outcomes",
    "refuse_test_state",
    "require_calvin_env",
    "starting_states",
    "state_vector",
    "training_scene",
    "training_sequences",
]
