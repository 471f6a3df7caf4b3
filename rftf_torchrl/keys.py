"""The TensorDict keys that every component uses by default.

Each component takes its keys as arguments, so that a pipeline with other names only passes its
own. The rest of the schema follows :mod:`torchrl.data.vla`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from torchrl.data.vla import ACTION_CHUNK_KEY, ACTION_IS_PAD_KEY, IMAGE_KEY, STATE_KEY

P = ParamSpec("P")
R = TypeVar("R")

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
MASK = ("collector", "mask")
TRAJECTORY_SUCCESS = "trajectory_success"
TIME_LEFT = "time_left"
FAILURE_RATE = "failure_rate"

TEMPORAL_VALUE = "temporal_value"
BEST_VALUE = "best_value"
ENV_POTENTIAL = "env_potential"
STATE_VALUE = "state_value"
OUTCOME_REWARD = "outcome_reward"
DENSE_REWARD = "dense_reward"
REWARD = "reward"
ADVANTAGE = "advantage"


def nested_keys(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function take nested keys as lists too, as YAML writes them.

    Which arguments are keys is told by their annotations: ``NestedKey``, or a container of it.

    Args:
        function: the function, or a class's ``__init__``.

    Returns:
        The function, called with tuples.

    Example:
        >>> @nested_keys
        ... def written(key: NestedKey, **more: NestedKey):
        ...     return key, more
        >>> written(["next", "reward"], done=["next", "done"])
        (('next', 'reward'), {'done': ('next', 'done')})
    """
    signature = inspect.signature(function)
    reads = {
        name: _reader(parameter)
        for name, parameter in signature.parameters.items()
        if "NestedKey" in str(parameter.annotation)
    }

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says what is wrong with the call
        for name in reads.keys() & bound.arguments.keys():
            bound.arguments[name] = reads[name](bound.arguments[name])
        return function(*bound.args, **bound.kwargs)

    return wrapper


def as_key(key: Any) -> Any:
    """A nested key as a tuple; anything else as it is."""
    is_list = isinstance(key, Sequence) and not isinstance(key, str | tuple)
    return tuple(key) if is_list else key


def _keys(several: Any) -> Any:
    of_keys = isinstance(several, Iterable) and not isinstance(several, str)
    return [*map(as_key, several)] if of_keys else several


def _values(several: Any) -> Any:
    if not isinstance(several, Mapping):
        return several
    return {name: as_key(key) for name, key in several.items()}


def _reader(parameter: inspect.Parameter) -> Callable[[Any], Any]:
    if parameter.kind is inspect.Parameter.VAR_KEYWORD or "Mapping[" in str(parameter.annotation):
        return _values
    alone = str(parameter.annotation) in ("NestedKey", "NestedKey | None")
    several = parameter.kind is inspect.Parameter.VAR_POSITIONAL or not alone
    return _keys if several else as_key
