"""The actions of one decision, checked before a simulator carries them out."""

from __future__ import annotations

import numpy as np
from tensordict import TensorDictBase
from torchrl.envs import EnvBase


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
        >>> import torch
        >>> env = PendulumEnv()
        >>> read_actions(env, TensorDict({"action": torch.ones(1)}), "task 'up'").tolist()
        [1.0]
    """
    given = tensordict.get(env.action_key).detach().cpu().numpy()
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
