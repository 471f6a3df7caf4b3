"""Meta-World as the recipes run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from torchrl.envs import EnvBase

from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.episodes import Split
from rftf_torchrl.envs.simulator import EnvConfig, Recording
from rftf_torchrl.metaworld.env import MetaWorldEnv
from rftf_torchrl.metaworld.expert import ScriptedExpert
from rftf_torchrl.metaworld.factory import MetaWorldFactory
from rftf_torchrl.metaworld.simulator import MetaWorldSimulator
from rftf_torchrl.metaworld.tasks import SAME_SCENE, TASKS
from rftf_torchrl.settings import Count
from rftf_torchrl.training.recording import Expert, record_demonstrations


@dataclass
class MetaWorldOptions:
    """Settings of Meta-World.

    Attributes:
        action_repeat: simulator steps for which an action is held.
    """

    action_repeat: Count = 3


class MetaWorld:
    """Meta-World's fifty tasks, see :class:`~rftf_torchrl.Simulator`."""

    kind: ClassVar[str] = "metaworld"
    Options = MetaWorldOptions
    tasks = TASKS
    same_scene = SAME_SCENE
    has_potential = True

    def __init__(self, env: EnvConfig, options: MetaWorldOptions) -> None:
        self.env = env
        self.options = options

    @property
    def steps_per_action(self) -> int:
        """Simulator steps for which an action is held."""
        return self.options.action_repeat

    def problems(self) -> list[str]:
        """None beyond types and ranges."""
        return []

    def factory(self, split: Split, recorded: Path) -> MetaWorldFactory:
        """Makes the environments of a split."""
        env = self.env
        return MetaWorldFactory(
            split, env.image_size, env.chunk_size, self.options.action_repeat, env.horizon
        )

    def record(self, recording: Recording) -> int:
        """Records the scripted experts, unless the folder is there; returns the steps used."""
        max_actions = self.env.horizon * self.env.chunk_size

        def make_env(task: Task, split: Split) -> MetaWorldEnv:
            return MetaWorldEnv(
                task.name,
                split=split,
                image_size=self.env.image_size,
                action_repeat=self.options.action_repeat,
                horizon=2 * max_actions + 1,
            )

        def make_expert(task: Task, seed: int) -> Expert:
            expert = ScriptedExpert(task, noise=recording.noise, seed=seed)

            def act(env: EnvBase) -> tuple[np.ndarray, np.ndarray]:
                meant = expert.action(env.simulator.state)
                return meant, expert.disturb(meant)

            return act

        return record_demonstrations(
            recording,
            [self.tasks[name] for name in self.env.tasks],
            make_env,
            make_expert,
            simulator=self.kind,
            max_actions=max_actions,
            steps_per_action=self.steps_per_action,
        )

    def start_vectors(self, task: str, split: Split, seeds: Sequence[int]) -> np.ndarray:
        """The vectors from which resets to these seeds take their start, float64 [16 N, D]."""
        simulator = MetaWorldSimulator(self.tasks[task], split, render=False)
        vectors = [simulator.start_vectors(seed) for seed in seeds]
        simulator.close()
        return np.concatenate(vectors)
