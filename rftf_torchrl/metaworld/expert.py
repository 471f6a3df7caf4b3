"""Meta-World's scripted experts, as something that yields action chunks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from rftf_torchrl.data.format import Task
from rftf_torchrl.optional import metaworld_module


class ScriptedExpert:
    """The scripted policy that Meta-World ships for a task.

    Args:
        task: which task.
        noise: standard deviation of the Gaussian noise that :meth:`disturb` adds to an action.
        seed: seed of that noise.

    Example:
        >>> import numpy as np
        >>> from rftf_torchrl import ScriptedExpert
        >>> from rftf_torchrl.metaworld.tasks import get_task
        >>> ScriptedExpert(get_task("drawer-open")).action(np.zeros(39)).shape
        (4,)
    """

    def __init__(self, task: Task, *, noise: float = 0.0, seed: int = 0) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            policies = metaworld_module("metaworld.policies").ENV_POLICY_MAP
        make_policy: Callable[[], Any] = policies[f"{task.name}-v3"]
        self._policy = make_policy()
        self._noise = noise
        self._rng = np.random.default_rng(seed)

    def action(self, state: np.ndarray) -> np.ndarray:
        """The action in [-1, 1]^4 for Meta-World's 39-dimensional state."""
        with warnings.catch_warnings():  # it warns of actions beyond [-1, 1], clipped here
            warnings.simplefilter("ignore", UserWarning)
            return cast(np.ndarray, np.clip(self._policy.get_action(state), -1.0, 1.0))

    def disturb(self, action: np.ndarray) -> np.ndarray:
        """The action to execute in place of one from :meth:`action`, with the expert's noise.

        Demonstrations that execute the noise and record the undisturbed action show how to come
        back to the path (DART, Laskey et al. 2017, arXiv 1703.09327).
        """
        if not self._noise:
            return action
        return np.clip(action + self._noise * self._rng.standard_normal(4), -1.0, 1.0)
