"""A policy that acts for a while before an expert takes over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import keys
from rftf_torchrl.envs.one_thread import one_thread


@dataclass(frozen=True)
class Takeover:
    """How an expert's demonstrations begin where a policy leads.

    Source: DAgger, Ross, Gordon, Bagnell, AISTATS 2011, arXiv 1011.0686, with one change of hands
    in an episode.

    Attributes:
        policy: acts with its mean actions, on a CPU.
        chunk_size: actions of one of its decisions.
        most: most decisions before the expert takes over.

    Example:
        >>> from torch import nn
        >>> takeover = Takeover(nn.Identity(), chunk_size=2, most=5)
        >>> [takeover.decisions(seed) for seed in range(6)]
        [5, 2, 0, 1, 2, 0]
    """

    policy: TensorDictModuleBase
    chunk_size: int
    most: int

    def decisions(self, seed: int) -> int:
        """How many the policy takes in an episode: none in half of them, else 1 to ``most``."""
        rng = np.random.default_rng([seed, self.most])
        return int(rng.integers(1, self.most + 1)) if rng.random() < 0.5 else 0

    def act(
        self, env: EnvBase, current: TensorDictBase, decisions: int
    ) -> tuple[TensorDictBase, int]:
        """Play the policy's decisions in an environment of single actions.

        Args:
            env: just reset.
            current: what its reset gave.
            decisions: how many.

        Returns:
            What is seen then, or at the episode's end, and the actions carried out.
        """
        forget = getattr(self.policy, "reset", None)
        if forget is not None:
            forget()
        actions = 0
        for _ in range(decisions):
            seen = current.select(*self.policy.in_keys, strict=False).unsqueeze(0)
            with (
                one_thread(),
                torch.inference_mode(),
                set_exploration_type(ExplorationType.DETERMINISTIC),
            ):
                chunk = self.policy(seen)[keys.CHUNK][0]
            for action in chunk.clone():
                current = env.step(current.set("action", action))["next"]
                actions += 1
                if bool(current["done"]):
                    return current, actions
        return current, actions
