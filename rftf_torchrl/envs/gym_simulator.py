"""TorchRL's own environments as a simulator, Gymnasium's among them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from torchrl.data import Binary, Composite
from torchrl.envs import EnvBase, GymEnv
from torchrl.envs.gym_like import BaseInfoDictReader

from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.decision_env import DecisionEnv
from rftf_torchrl.envs.episodes import Episode, Split
from rftf_torchrl.envs.simulator import EnvConfig
from rftf_torchrl.optional import optional_module
from rftf_torchrl.registry import Registry
from rftf_torchrl.settings import Text

logger = logging.getLogger(__name__)

_PATIENCE = 1000
_MAKERS = Registry("maker of environments", "rftf_torchrl.gym_makers", {}, ("__call__",))


@dataclass
class GymOptions:
    """Settings of the simulator ``gym``.

    Attributes:
        env_ids: Gymnasium's id of each task's environment, by the task's name.
        instructions: the instruction of each task.
        make: makes another environment of TorchRL's in place of Gymnasium's, as
            ``"module:function"``; called with the id and the arguments.
        arguments: further arguments of the environment.
        state: the environment's entry that becomes the state.
        image: the entry that becomes the image.
        success: the entry that says whether the task is done, of Gymnasium's ``info``; null: a
            termination does.
        same_scene: pairs of tasks that nothing but the instruction tells apart.
    """

    env_ids: dict[str, Text] = field(default_factory=dict)
    instructions: dict[str, Text] = field(default_factory=dict)
    make: Text | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    state: Text = "observation"
    image: Text = "pixels"
    success: Text | None = None
    same_scene: tuple[tuple[str, str], ...] = ()


class _InfoFlag(BaseInfoDictReader):
    """Reads a flag of ``info``, false where it is missing, as after a reset."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps_without: int | None = 0

    @property
    def info_spec(self) -> Composite:
        return Composite({self.name: Binary(shape=[1], dtype=torch.bool)})

    def __call__(self, info_dict: dict[str, Any], tensordict: TensorDictBase) -> TensorDictBase:
        if self.name in info_dict:
            self._steps_without = None
        elif self._steps_without is not None:
            self._steps_without += 1
            if self._steps_without == _PATIENCE:
                logger.warning(
                    "in %d steps info has never had %r (env.options.success), so no episode "
                    "succeeded; it has %s",
                    _PATIENCE,
                    self.name,
                    ", ".join(map(repr, info_dict)) or "nothing",
                )
        return tensordict.set(self.name, torch.tensor([bool(info_dict.get(self.name, False))]))


@dataclass(frozen=True)
class GymFactory:
    """A picklable function from an episode to its environment.

    Attributes:
        split: which initial states.
        env: the run's.
        options: the simulator's.
        task_list: the tasks by name.
        write_text: see :class:`DecisionEnv`.
    """

    split: Split
    env: EnvConfig
    options: GymOptions
    task_list: Mapping[str, Task]
    write_text: bool = False

    def __call__(self, episode: Episode) -> DecisionEnv:
        """The environment of the episode's task, with the episode's instruction."""
        options = self.options
        return DecisionEnv(
            self._inside(options.env_ids[episode.task]),
            self.task_list[episode.task],
            split=self.split,
            state_key=options.state,
            image_key=options.image,
            image_size=self.env.image_size,
            success_key=options.success,
            chunk_size=self.env.chunk_size,
            horizon=self.env.horizon,
            instruction=episode.instruction,
            write_text=self.write_text,
        )

    def _inside(self, env_id: str) -> EnvBase:
        options = self.options
        if options.make is not None:
            made: EnvBase = _MAKERS.find(options.make)(env_id, **options.arguments)
            return made
        pixels = self.env.image_size is not None
        env = GymEnv(env_id, from_pixels=pixels, pixels_only=False, **options.arguments)
        if options.success is not None:
            env.set_info_dict_reader(_InfoFlag(options.success))
        return env


class GymSimulator:
    """Environments that Gymnasium or TorchRL makes, a task each, see :class:`Simulator`.

    There is no expert: demonstrations are brought, in the format of ``rftf_torchrl.data``.
    """

    kind: ClassVar[str] = "gym"
    Options = GymOptions
    steps_per_action = 1

    def __init__(self, env: EnvConfig, options: GymOptions) -> None:
        self.env = env
        self.options = options

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of ``env_ids``, in their order."""
        return {
            name: Task(number, name, self.options.instructions.get(name, ""))
            for number, name in enumerate(self.options.env_ids)
        }

    @property
    def same_scene(self) -> Sequence[tuple[str, str]]:
        """The pairs that the settings name."""
        return self.options.same_scene

    def problems(self) -> list[str]:
        """Tasks without an instruction, and names of what is not there."""
        options = self.options
        found = [
            f"env.options.instructions: task {name!r} has no instruction"
            for name, task in self.tasks.items()
            if not task.instruction
        ]
        pairs = [name for pair in options.same_scene for name in pair]
        found += [
            f"env.options.same_scene: there is no task {name!r}"
            for name in dict.fromkeys(pairs)
            if name not in self.tasks
        ]
        if options.make is None:
            return found + _unknown_ids(options.env_ids)
        try:
            _MAKERS.find(options.make)
        except ValueError as error:
            found.append(f"env.options.make={options.make}: {error}")
        return found

    def factory(self, split: Split, recorded: Path) -> GymFactory:
        """Makes the environments of a split; the two splits share no seed."""
        return GymFactory(split, self.env, self.options, self.tasks)


def _unknown_ids(env_ids: Mapping[str, str]) -> list[str]:
    """Ids that Gymnasium does not know; one with a module, ``"module:Id-v0"``, is not looked up."""
    gymnasium = optional_module("gymnasium", "metaworld", "env=gym")
    problems = []
    for task, env_id in env_ids.items():
        try:
            if ":" not in env_id:
                gymnasium.spec(env_id)
        except gymnasium.error.Error as error:
            problems.append(f"env.options.env_ids.{task}={env_id}: {error}")
    return problems
