"""The TensorDict keys that every component uses by default.

Each component takes its keys as arguments, so that a pipeline with other names only passes its
own. The rest of the schema follows :mod:`torchrl.data.vla`.
"""

from __future__ import annotations

from torchrl.data.vla import ACTION_CHUNK_KEY, ACTION_IS_PAD_KEY, IMAGE_KEY, STATE_KEY

IMAGE = IMAGE_KEY
WRIST_IMAGE = ("observation", "wrist_image")
STATE = STATE_KEY
TOKENS = ("instruction", "tokens")
TOKEN_MASK = ("instruction", "mask")
INSTRUCTION_TEXT = "language_instruction"
VLA_INPUTS = "vla_inputs"
TASK_ID = "task_id"
IMAGE_FEATURES = ("features", "image")

LOC = "loc"
SCALE = "scale"
LOGITS = "logits"
CHUNK = ACTION_CHUNK_KEY
CHUNK_IS_PAD = ACTION_IS_PAD_KEY
LOG_PROB = ("vla_action", "log_probs")
EXECUTED = ("vla_action", "executed")
REFERENCE = "reference"
FEATURES = "features"
FLOW_PATH = ("vla_action", "flow_path")
FLOW_LOC = ("flow", "loc")
FLOW_SCALE = ("flow", "scale")
FLOW_MODE = ("flow", "mode")
CACHE = "cache"

SUCCESS = "success"
CRASHED = "crashed"
TRAJECTORY = ("collector", "traj_ids")
TRAJECTORY_SUCCESS = "trajectory_success"

TEMPORAL_VALUE = "temporal_value"
ENV_POTENTIAL = "env_potential"
STATE_VALUE = "state_value"
OUTCOME_REWARD = "outcome_reward"
DENSE_REWARD = "dense_reward"
REWARD = "reward"
ADVANTAGE = "advantage"
VALUE_TARGET = "value_target"
