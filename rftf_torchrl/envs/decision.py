"""What environments that act in decisions share: their specs, their actions, how a step ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from rftf_torchrl import keys


def set_decision_specs(
    env: EnvBase,
    observation: Mapping[str, Any],
    *,
    tokens: int,
    chunk_size: int | None,
    action_dim: int,
    extra: Mapping[str, Any],
) -> None:
    """Give an environment the specs of this library's keys.

    Args:
        env: the environment.
        observation: specs below ``"observation"``.
        tokens: length of a tokenised instruction, L.
        chunk_size: actions of a decision, or ``None`` for a plain ``"action"``.
        action_dim: numbers of an action, all in [-1, 1].
        extra: specs of further observations, at the root.

    Example:
        >>> from torchrl.envs.custom import PendulumEnv
        >>> env = PendulumEnv()
        >>> state = {"state": Unbounded([4])}
        >>> set_decision_specs(env, state, tokens=8, chunk_size=5, action_dim=7, extra={})
        >>> env.full_action_spec["vla_action", "chunk"].shape
        torch.Size([5, 7])
    """
    env.observation_spec = Composite(
        {
            "observation": Composite(dict(observation)),
            "instruction": Composite(
                tokens=Unbounded([tokens], dtype=torch.int64),
                mask=Binary(shape=[tokens], dtype=torch.bool),
            ),
            keys.TASK_ID: Unbounded([1], dtype=torch.int64),
            "episode_seed": Unbounded([1], dtype=torch.int64),
            keys.SUCCESS: Binary(shape=[1], dtype=torch.bool),
            keys.CRASHED: Binary(shape=[1], dtype=torch.bool),
            "executed": Binary(shape=[chunk_size or 1], dtype=torch.bool),
            **extra,
        }
    )
    # TransformedEnv hands nothing but state keys on to the reset of the environment inside.
    env.state_spec = Composite(episode_seed=Unbounded([1], dtype=torch.int64))
    env.reward_spec = Unbounded([1])
    flag = Binary(shape=[1], dtype=torch.bool)
    env.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone())
    if chunk_size is None:
        env.action_spec = Bounded(-1.0, 1.0, shape=[action_dim])
    else:
        chunk = Bounded(-1.0, 1.0, shape=[chunk_size, action_dim])
        env.action_spec = Composite(vla_action=Composite(chunk=chunk))


def reward_and_done(*, success: bool, truncated: bool) -> dict[str, Tensor]:
    """The sparse reward of a decision, 1 at success, and whether the episode ends, and how.

    Args:
        success: whether the task was done in it.
        truncated: whether the simulator crashed or the last decision was spent; a success is a
            termination all the same.

    Returns:
        float32 and bool, all [1].

    Example:
        >>> found = reward_and_done(success=True, truncated=True)
        >>> {name: value.item() for name, value in found.items()}
        {'reward': 1.0, 'terminated': True, 'truncated': False, 'done': True}
    """
    return {
        "reward": torch.tensor([float(success)]),
        "terminated": torch.tensor([success]),
        "truncated": torch.tensor([truncated and not success]),
        "done": torch.tensor([success or truncated]),
    }


def read_actions(env: EnvBase, tensordict: TensorDictBase, moment: str) -> np.ndarray:
    """Read the actions that an environment is to carry out.

    Args:
        env: an environment with one action key.
        tensordict: what its step was given.
        moment: task, episode and decision, for the message.

    Returns:
        The actions in the shape of the action spec.

    Raises:
        ValueError: for another shape than the spec's, which reshaping would cut into other actions
            than were meant, and for a number that is not finite.

    Example:
        >>> from torchrl.envs.custom import PendulumEnv
        >>> from tensordict import TensorDict
        >>> env = PendulumEnv()
        >>> read_actions(env, TensorDict({"action": torch.ones(1)}), "task 'up'").tolist()
        [1.0]
    """
    given: np.ndarray = tensordict.get(env.action_key).detach().cpu().numpy()
    expected = tuple(env.full_action_spec[env.action_key].shape)
    if given.shape != expected:
        raise ValueError(
            f"{env.action_key}: the action for {moment} has the shape {given.shape}, and the "
            f"environment's action spec has {expected}: give each decision as many actions, of as "
            "many numbers, as the spec has"
        )
    if not np.isfinite(given).all():
        raise ValueError(f"{env.action_key}: the action for {moment} is not finite")
    return given
