"""Does what a policy decides have the sizes that an environment takes?"""

from __future__ import annotations

from typing import Any

from rftf_torchrl.policies.call_on_tensors import Tensors


def check_action_sizes(decision: Tensors, env: Any, task: str) -> None:
    """Refuses a decision that the environment would cut, stretch or stumble over.

    Args:
        decision: what the policy wrote for one environment.
        env: the environment, of no batch dimension.
        task: the task, for the error.

    Raises:
        ValueError: if the environment's action is missing or of another shape.
    """
    for key in env.action_keys:
        expected, found = tuple(env.full_action_spec[key].shape), decision.get(key, None)
        if found is None:
            raise ValueError(
                f"the policy writes no {key!r}, which the environment of task {task!r} takes, of "
                f"shape {expected}; it writes {sorted(decision, key=str)}: give "
                "the environment the policy's chunk_size, or the policy that key."
            )
        if tuple(found.shape) != expected:
            raise ValueError(
                f"the policy's {key!r} has shape {tuple(found.shape)}, and the environment of task "
                f"{task!r} takes {expected}{_named(expected)}: build both with the same sizes; in "
                "the recipes, env.chunk_size is that of the cloned policy."
            )


def _named(shape: tuple[int, ...]) -> str:
    return " = (chunk_size, action_dim)" if len(shape) == 2 else ""
