"""What a simulator has to have, and where the recipes find one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, cast

import torch
from omegaconf import MISSING
from tensordict import TensorDict
from torch import nn
from torchrl.envs import EnvBase
from torchrl.envs.transforms import Transform

from rftf_torchrl.cores import usable_cores
from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.collector import EpisodeCollector
from rftf_torchrl.envs.episodes import Episode, Split
from rftf_torchrl.envs.policy_inputs import PolicyInputFactory
from rftf_torchrl.envs.takeover import Takeover
from rftf_torchrl.registry import Registry
from rftf_torchrl.settings import (
    Count,
    Names,
    NotNegative,
    NotNegativeInt,
    Positive,
    Text,
    make_settings,
    one_of,
    setting_problems,
)

MakeEnv = Callable[[Episode], EnvBase]


@dataclass
class EnvConfig:
    """The simulator and the tasks.

    Attributes:
        kind: ``"metaworld"``, ``"calvin"``, ``"libero"``, ``"gym"``, or a simulator of your own as
            ``"module:Class"``.
        tasks: names of the tasks.
        image_size: width and height of the image in pixels; null for the simulator's state without
            images.
        chunk_size: number of actions per decision of the policy.
        horizon: an episode is truncated after this many decisions.
        options: settings of this simulator alone, see its ``Options``.
    """

    kind: Text = "metaworld"
    tasks: Names = MISSING
    image_size: Count | None = 64
    chunk_size: Count = 2
    horizon: Count = 25
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class CollectorConfig:
    """The simulator processes.

    Attributes:
        engine: ``"process"``: on this machine. ``"ray"``: as actors of a Ray cluster, on any of its
            machines; each asks for one CPU.
        policy: ``"copy"``: each process has a copy of the policy on the CPU. ``"server"``: the
            policy itself decides on its device, in batches for all processes.
        workers: number of simulator processes, each of which plays one episode at a time; 0
            simulates in the main process.
        gpus_per_simulator: for ``"ray"``: GPUs, or a share of one, that a simulator asks for.
        batch: for ``"server"``: the largest number of decisions at once; null for as many as there
            are workers.
        wait: for ``"server"``: seconds to wait for more workers before a batch starts; null for
            half of the time that the policy took for its last batches.
        timeout: a worker that shows no sign of life for this many seconds is replaced; one of the
            learner's processes that torchrun started then ends the run.
        max_restarts: number of replaced workers after which the run stops.
    """

    engine: Annotated[str, one_of("process", "ray")] = "process"
    policy: Annotated[str, one_of("copy", "server")] = "copy"
    workers: NotNegativeInt = 2
    gpus_per_simulator: NotNegative = 0.0
    batch: Count | None = None
    wait: NotNegative | None = None
    timeout: Positive = 120.0
    max_restarts: NotNegativeInt = 10

    @property
    def workers_here(self) -> int:
        """Number of processes for recordings and official evaluations, on this machine alone."""
        return min(self.workers, usable_cores()) if self.engine == "ray" else self.workers

    def arguments(self) -> dict[str, Any]:
        """The arguments of a simulator's own evaluation, with processes of this machine alone.

        Example:
            >>> CollectorConfig(workers=0).arguments()["serve"]
            False
        """
        given = asdict(self)
        del given["engine"], given["gpus_per_simulator"]
        return given | {"serve": given.pop("policy") == "server", "workers": self.workers_here}


@dataclass(frozen=True)
class Recording:
    """What a simulator's expert is asked to record.

    Attributes:
        folder: where the demonstrations go; what else the simulator keeps lies beside it.
        per_task: successful episodes per task to train on.
        held_out_per_task: further episodes per task, of the split ``"test"``.
        tuned: the tasks of which fine-tuning plays episodes.
        noise: standard deviation of the noise added to the actions that the expert executes.
        takeover: a policy that acts first in half of the episodes to train on; None for none.
        seed: from which all random numbers derive.
        workers: processes; 0 records in the main process.
        timeout: seconds without a sign of life after which a process is replaced.
        max_restarts: replacements before the recording gives up.
    """

    folder: Path
    per_task: int
    held_out_per_task: int
    tuned: Sequence[str]
    noise: float = 0.0
    takeover: Takeover | None = None
    seed: int = 0
    workers: int = 0
    timeout: float = 120.0
    max_restarts: int = 10


class Simulator(Protocol):
    """What a class has to have for the recipes to run on its simulator.

    It is made by :func:`make_simulator`. The members below are needed. These are optional:

    - ``record(recording: Recording) -> int``, with an expert: writes the demonstrations that are
      not there yet and returns the simulator steps used; see :func:`record_demonstrations`. For
      demonstrations that were there, their index says it (``simulator_steps``).
    - ``evaluate(policy, transform, *, collector: CollectorConfig, deterministic, seed, folder,
      label)``: an evaluation of the simulator's own, in place of success over held-out episodes.
      Its report has ``name``, ``markdown()`` and ``to_dict()``. With it comes
      ``compare(before, after, labels) -> (dict, str)``: two reports compared, and a table.
    - ``evaluates_test_split = True``: that evaluation counts success over episodes of the split
      ``"test"``, so a study (``rftf compare``) can count it, too. ``test_states: int`` is the
      number of initial states that a task has there, where there are not any number.
    - ``start_vectors(task: str, split: Split, seeds: Sequence[int]) -> np.ndarray`` [N, D]: what
      episodes with these seeds may start from, for a study's check that training and evaluation
      share none. Without it, the first ``("observation", "state")`` of each is compared.
    - ``check_starts(recorded: Path, tasks: Sequence[str]) -> None``: raises ``ValueError`` before
      anything is played where episodes of one of the tasks have no state to start from.
    - ``has_potential = True``: the factory is a dataclass with a field ``potential``; switched on,
      its environments write the simulator's own dense reward as ``"env_potential"``.
    - ``may_change: Sequence[str]``: options that a resumed run may change, as they decide nothing
      that training reads.
    - ``about(recorded: Path) -> str``: a sentence on the data and the run for the report's first
      line.
    - ``augment(frames, share, generator) -> TensorDictBase``: frames [B, ...] as they are cloned,
      of which a share of the rows is changed by a symmetry of the simulator's.
    - ``objects: tuple[tuple[int, ...], ...]``: the state's entries of each of several objects of
      one kind, see :class:`ObjectEncoder`.
    - ``wrist: bool``: whether there are images of a gripper camera.

    Attributes:
        kind: a name, which the demonstrations record.
        Options: a dataclass of the simulator's settings, with a default each.
        tasks: the tasks by name.
        same_scene: pairs of tasks that nothing but the instruction tells apart.
        steps_per_action: simulator steps that an action takes.
    """

    kind: ClassVar[str]
    Options: ClassVar[type]

    def __init__(self, env: EnvConfig, options: Any) -> None: ...

    @property
    def tasks(self) -> Mapping[str, Task]: ...

    @property
    def same_scene(self) -> Sequence[tuple[str, str]]: ...

    @property
    def steps_per_action(self) -> int: ...

    def problems(self) -> list[str]:
        """Lists what is wrong with the settings beyond their types and ranges."""
        ...

    def factory(self, split: Split, recorded: Path) -> MakeEnv:
        """A picklable function from an episode to its environment.

        Args:
            split: the two splits must never share an initial state.
            recorded: the folder of the demonstrations, beside which :meth:`record` may have kept
                something.
        """
        ...


SIMULATORS = Registry(
    "simulator",
    "rftf_torchrl.simulators",
    {
        "metaworld": "rftf_torchrl.metaworld.door:MetaWorld",
        "calvin": "rftf_torchrl.calvin.door:Calvin",
        "libero": "rftf_torchrl.libero.door:Libero",
        "gym": "rftf_torchrl.envs.gym_simulator:GymSimulator",
    },
    (
        "kind", "Options", "tasks", "same_scene", "steps_per_action", "problems", "factory"
    ),
)  # fmt: skip


def simulator_class(kind: str) -> type[Simulator]:
    """Find the class of a simulator.

    Args:
        kind: a name of the library's, of an installed package's entry point in the group
            ``rftf_torchrl.simulators``, or ``"module:Class"``.

    Raises:
        ValueError: where there is none, or the class lacks a member; says which.

    Example:
        >>> simulator_class("metaworld").__name__
        'MetaWorld'
    """
    return cast(type[Simulator], SIMULATORS.find(kind))


def simulator_problems(env: EnvConfig) -> list[str]:
    """List what is wrong with a simulator's settings.

    Example:
        >>> simulator_problems(EnvConfig("metaworld", ["drawer-opn"]))
        ["env.tasks: metaworld has no task 'drawer-opn'; did you mean 'drawer-open'?"]
    """
    try:
        found = simulator_class(env.kind)
    except ValueError as error:
        return [f"env.kind: {error}"]
    problems = setting_problems(found.Options, env.options, "env.options.")
    if problems:
        return problems
    simulator = found(env, make_settings(found.Options, env.options))
    for name in env.tasks:
        if name not in simulator.tasks:
            near = get_close_matches(name, simulator.tasks, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(simulator.tasks)}"
            problems.append(f"env.tasks: {env.kind} has no task {name!r}; {hint}")
    return problems + simulator.problems()


def make_simulator(env: EnvConfig) -> Simulator:
    """Make the simulator that the settings describe; it starts no process and opens no window.

    Raises:
        ValueError: listing everything that is wrong with the settings.

    Example:
        >>> simulator = make_simulator(EnvConfig("metaworld", ["drawer-open"]))
        >>> simulator.tasks["drawer-open"].instruction, simulator.steps_per_action
        ('open the drawer', 3)
    """
    problems = simulator_problems(env)
    if problems:
        raise ValueError("; ".join(problems))
    found = simulator_class(env.kind)
    return found(env, make_settings(found.Options, env.options))


def task_names(simulator: Simulator, names: Sequence[str]) -> dict[int, str]:
    """Names by number, as logs and tables need them.

    Example:
        >>> task_names(make_simulator(EnvConfig("metaworld", ["reach"])), ["reach"])
        {40: 'reach'}
    """
    return {simulator.tasks[name].id: name for name in names}


def environment_factory(
    simulator: Simulator,
    split: Split,
    recorded: Path,
    transform: Transform | None = None,
    *,
    potential: bool = False,
) -> MakeEnv:
    """A function from an episode to its environment, with the inputs of a policy.

    Args:
        simulator: of :func:`make_simulator`.
        split: ``"train"`` or ``"test"``.
        recorded: folder of the demonstrations, see :meth:`Simulator.factory`.
        transform: a policy's ``observation_transform()``.
        potential: whether to write the simulator's own dense reward, ``"env_potential"``.

    Raises:
        ValueError: if the simulator has no dense reward of its own.
    """
    make_env: Any = simulator.factory(split, recorded)
    if potential:
        if not getattr(simulator, "has_potential", False):
            raise ValueError(f"{simulator.kind} has no dense reward of its own")
        make_env = replace(make_env, potential=True)
    return make_env if transform is None else PolicyInputFactory(make_env, transform)


def make_collector(
    make_env: MakeEnv, policy: nn.Module, collector: CollectorConfig
) -> EpisodeCollector:
    """Make what runs episodes with a policy, as a run's settings say.

    Args:
        make_env: of :func:`environment_factory`.
        policy: the policy.
        collector: how many processes, who decides, and their patience.

    Returns:
        The collector; close it, or use it as a context manager.
    """
    return EpisodeCollector(
        make_env,
        policy,
        **collector.arguments()
        | {
            "workers": collector.workers,
            "engine": collector.engine,
            "gpus": collector.gpus_per_simulator,
        },
    )


def check_seeds(env: EnvBase, task: str) -> None:
    """Refuse an environment that starts two seeds in one observation: it ignores them.

    Args:
        env: its reset takes ``"episode_seed"``.
        task: the task's name, for the message.

    Raises:
        ValueError: if the observations are equal.
    """
    first, second = (
        env.reset(TensorDict({"episode_seed": torch.tensor([seed])}))["observation"]
        for seed in (0, 1)
    )
    if all(torch.equal(first[key], second[key]) for key in first.keys(True, True)):
        raise ValueError(
            f"the environment of task {task!r} starts seeds 0 and 1 in the same observation: its "
            "reset must draw the initial state from the 'episode_seed' that it is given."
        )
