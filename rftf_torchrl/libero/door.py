"""LIBERO as the recipes run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, cast

import numpy as np
from pydantic import Field
from torchrl.envs import EnvBase

from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.episodes import Split
from rftf_torchrl.envs.simulator import EnvConfig, Recording
from rftf_torchrl.errors import UserError
from rftf_torchrl.libero.env import LiberoEnv
from rftf_torchrl.libero.factory import LiberoFactory
from rftf_torchrl.libero.protocol import PROTOCOLS
from rftf_torchrl.libero.simulator import PICTURES, Pictures
from rftf_torchrl.libero.suites import HELD_OUT, STATES_PER_TASK, SUITES, libero_tasks
from rftf_torchrl.settings import Count, one_of
from rftf_torchrl.training.recording import Expert, record_demonstrations


@dataclass
class LiberoOptions:
    """Settings of LIBERO.

    Attributes:
        suite: the suite of the tasks. Those of LIBERO-PRO, such as ``"libero_object_swap"``, have
            the same tasks changed; they are there to evaluate, and nothing is trained on them.
        wrist: whether there are pictures of the camera at the gripper too.
        pictures: how demonstrations and training draw: ``"exact"``, ``"plain"`` or ``"fast"``, see
            :class:`LiberoSimulator`.
        evaluation_pictures: how evaluations do; all but ``"exact"`` departs from the protocol.
        environments: environments that the tasks share, in all processes together.
        kept: simulators that each of them keeps, at 1.0 to 1.6 GB.
        protocol: the variant of the official evaluation: ``"openvla-oft"``, ``"openpi"`` or
            ``"lerobot"``.
        states_per_task: official initial states of each task in an evaluation, of 50.
    """

    suite: Annotated[str, one_of(*SUITES)] = "libero_object"
    wrist: bool = False
    pictures: Annotated[str, one_of(*PICTURES)] = "exact"
    evaluation_pictures: Annotated[str, one_of(*PICTURES)] = "exact"
    environments: Count = 2
    kept: Count = 1
    protocol: Annotated[str, one_of(*PROTOCOLS)] = "openvla-oft"
    states_per_task: Annotated[int, Field(ge=1, le=STATES_PER_TASK, strict=True)] = STATES_PER_TASK


class Libero:
    """A suite of LIBERO's and its official evaluation, see :class:`~rftf_torchrl.Simulator`."""

    kind: ClassVar[str] = "libero"
    Options = LiberoOptions
    same_scene: Sequence[tuple[str, str]] = ()
    steps_per_action = 1
    may_change = ("evaluation_pictures", "protocol", "states_per_task", "environments", "kept")

    def __init__(self, env: EnvConfig, options: LiberoOptions) -> None:
        self.env = env
        self.options = options

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of the suite."""
        return libero_tasks(self.options.suite)

    @property
    def wrist(self) -> bool:
        """Whether there are pictures of the gripper camera."""
        return self.options.wrist

    def problems(self) -> list[str]:
        """A wrist camera without pictures."""
        if self.options.wrist and self.env.image_size is None:
            return ["env.options.wrist=true: needs pictures, set env.image_size"]
        return []

    def _refuse_held_out(self) -> None:
        if self.options.suite in HELD_OUT:
            raise UserError(
                f"env.options.suite={self.options.suite}: a held-out test, nothing is trained on it"
            )

    def factory(self, split: Split, recorded: Path) -> LiberoFactory:
        """Makes the environments of a split, of states that are drawn anew.

        Raises:
            UserError: for the training states of a perturbed suite.
        """
        if split == "train":
            self._refuse_held_out()
        env, options = self.env, self.options
        return LiberoFactory(
            tuple(env.tasks),
            options.environments,
            split,
            options.suite,
            image_size=env.image_size,
            wrist=options.wrist,
            pictures=cast(Pictures, options.pictures),
            chunk_size=env.chunk_size,
            horizon=env.horizon,
            kept=options.kept,
        )

    def record(self, recording: Recording) -> int:
        """Records the scripted expert, unless the folder is there; returns the steps used.

        Raises:
            UserError: for a perturbed suite, or a task that the expert does not do.
        """
        from rftf_torchrl.libero.expert.expert import start_expert

        self._refuse_held_out()
        env, options = self.env, self.options
        max_actions = env.horizon * env.chunk_size

        def make_env(task: Task, split: Split) -> LiberoEnv:
            return LiberoEnv(
                task.name,
                suite=options.suite,
                split=split,
                image_size=env.image_size,
                wrist=options.wrist,
                pictures=cast(Pictures, options.pictures),
                horizon=max_actions + 1,
            )

        def make_expert(task: Task, seed: int) -> Expert:
            random = np.random.default_rng(seed)
            plan: list[Callable[[], np.ndarray]] = []

            def act(env: EnvBase) -> tuple[np.ndarray, np.ndarray]:
                if not plan:
                    plan.append(start_expert(env.simulator.raw))
                meant = plan[0]()
                executed = meant.copy()
                executed[:-1] += recording.noise * random.standard_normal(len(meant) - 1)
                return meant, np.clip(executed, -1.0, 1.0)

            return act

        return record_demonstrations(
            recording,
            [self.tasks[name] for name in env.tasks],
            make_env,
            make_expert,
            simulator=self.kind,
            max_actions=max_actions,
        )
