"""CALVIN as the recipes run it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.transforms import Transform

from rftf_torchrl.calvin.chains.comparison import chain_comparison_table, compare_chains
from rftf_torchrl.calvin.chains.play import evaluate_chains
from rftf_torchrl.calvin.chains.report import ChainReport
from rftf_torchrl.calvin.chains.results import ChainResult
from rftf_torchrl.calvin.chains.stages import begin_subtask, chain_start
from rftf_torchrl.calvin.colours import draw_permutations, permute_block_colours
from rftf_torchrl.calvin.data.format import split_folder
from rftf_torchrl.calvin.data.reader import CalvinDataset
from rftf_torchrl.calvin.factory import CalvinFactory
from rftf_torchrl.calvin.observation import BLOCK_ENTRIES
from rftf_torchrl.calvin.options import CalvinOptions
from rftf_torchrl.calvin.recording import ChainRecorder, load_starts
from rftf_torchrl.calvin.sequences import Chain, benchmark_sequences, training_sequences
from rftf_torchrl.calvin.settings import SCENES, Scene
from rftf_torchrl.calvin.tasks import TASKS, load_sentences
from rftf_torchrl.envs.episodes import Episode, Split
from rftf_torchrl.envs.policy_inputs import PolicyInputFactory
from rftf_torchrl.envs.simulator import CollectorConfig, EnvConfig, Recording
from rftf_torchrl.evaluation.start_report import GRIPPER_STEPS, write_start_report
from rftf_torchrl.training.progress import progress_bar
from rftf_torchrl.training.seeding import derive_seed

logger = logging.getLogger(__name__)


class Calvin:
    """CALVIN's thirty-four tasks and its benchmark, see :class:`~rftf_torchrl.Simulator`."""

    kind: ClassVar[str] = "calvin"
    Options = CalvinOptions
    tasks = TASKS
    same_scene: Sequence[tuple[str, str]] = ()
    steps_per_action = 1
    may_change = ("benchmark_chains", "development_chains", "steps_per_subtask")

    def __init__(self, env: EnvConfig, options: CalvinOptions) -> None:
        self.env = env
        self.options = options

    @property
    def scene(self) -> Scene:
        """The scene of fine-tuning and evaluation."""
        return cast(Scene, self.options.scene)

    @property
    def wrist(self) -> bool:
        """Whether there are images of the gripper camera."""
        return self.options.wrist_size is not None

    @property
    def objects(self) -> tuple[tuple[int, ...], ...]:
        """The state's entries of each block, where it holds them."""
        return BLOCK_ENTRIES if self.env.image_size is None else ()

    def problems(self) -> list[str]:
        """Scenes that are none or stand twice, or more of them than chains."""
        scenes, chains = self.options.demo_scenes or "", self.options.demo_chains
        problems = []
        if self.wrist and self.env.image_size is None:
            problems.append(
                f"env.options.wrist_size={self.options.wrist_size}: goes with the static camera's "
                "images, set env.image_size"
            )
        if not set(scenes) <= set(SCENES) or len(set(scenes)) < len(scenes):
            problems.append(
                f"env.options.demo_scenes={scenes!r}: expected letters among {''.join(SCENES)}, "
                "each once"
            )
        if chains < len(scenes):
            problems.append(
                f"env.options.demo_chains={chains}: must be at least {len(scenes)}, so that every "
                f"scene of env.options.demo_scenes={scenes} has one"
            )
        return problems

    def factory(self, split: Split, recorded: Path) -> CalvinFactory:
        """Makes the environments of a split; training starts where the recorded chains did.

        Raises:
            ValueError: where the states to train from are of another scene.
        """
        env, options = self.env, self.options
        train = split == "train"
        return CalvinFactory(
            split,
            scene=self.scene,
            states=load_starts(recorded, self.scene) if train else None,
            image_size=env.image_size,
            wrist_size=options.wrist_size,
            chunk_size=env.chunk_size,
            horizon=env.horizon,
            sentences=self._sentences("training"),
        )

    def check_starts(self, recorded: Path, tasks: Sequence[str]) -> None:
        """Refuse recorded starts that lack one of these tasks."""
        load_starts(recorded, self.scene, tasks)

    def about(self, recorded: Path) -> str:
        """Where demonstrations are from, as far as it is known, and where the rest is played."""
        data = recorded.parent / "calvin"
        if not split_folder(data, "training").is_dir():
            return f"Fine-tuning and evaluation in scene {self.scene}."
        scenes = ", ".join(sorted(set(CalvinDataset(data).scenes)))
        return f"Demonstrations in scene {scenes}; fine-tuning and evaluation in {self.scene}."

    def augment(
        self, frames: TensorDictBase, share: float, generator: torch.Generator
    ) -> TensorDictBase:
        """In a share of the rows [B, ...] the blocks have each other's colours."""
        return permute_block_colours(frames, draw_permutations(len(frames), share, generator))

    def record(self, recording: Recording) -> int:
        """Records what is missing of demonstrations and starts; returns the control steps used."""
        recorder = ChainRecorder(self.env, self.options, recording, self._sentences)
        return recorder.record()

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
    ) -> ChainReport:
        """Plays the chains; those finished before an interruption are not repeated."""
        env, options = self.env, self.options
        chains = self._evaluation_chains()

        def report_start() -> None:
            if transform is not None:
                logger.info("%s", self._start_report(policy, transform, folder, label))

        with progress_bar(len(chains), f"evaluation of {label}", unit="chains") as bar:
            lengths: list[int] = []

            def count(chain: ChainResult | None) -> None:
                if chain is not None:
                    lengths.append(chain.length)
                    bar.set_postfix(in_a_row=f"{fmean(lengths):.2f}", refresh=False)
                bar.update()

            report = evaluate_chains(
                policy,
                transform=transform,
                chains=chains,
                steps_per_subtask=options.steps_per_subtask,
                scene=self.scene,
                image_size=env.image_size,
                wrist_size=options.wrist_size,
                chunk_size=env.chunk_size,
                sentences=self._sentences("validation"),
                deterministic=deterministic,
                seed=seed,
                resume_path=folder / f"chains_{label}.jsonl",
                on_start=report_start,
                on_chain=count,
                **collector.arguments(),
            )
        report.save(folder / f"chains_{label}.json")
        return report

    def _start_report(
        self, policy: TensorDictModuleBase, transform: Transform, folder: Path, label: str
    ) -> str:
        (chain,) = benchmark_sequences(1)
        task, sentences = chain.tasks[0], self._sentences("validation")
        start = chain_start(chain, 0, self.scene)
        factory = replace(self.factory("test", folder), states=lambda *_: start)
        make_env = PolicyInputFactory(factory, transform)
        with closing(make_env(Episode(task, 0))) as env:
            simulator = env.simulator

            def fingers_apart(sign: float) -> float:
                for _ in range(GRIPPER_STEPS):
                    simulator.step(np.array([0.0] * 6 + [sign]))
                return float(simulator.robot_obs[6])

            simulator.reset(*start)
            seen = begin_subtask(env, task, None if sentences is None else sentences[task][0])
            return write_start_report(env, seen, policy, fingers_apart, folder, label)

    def compare(
        self, before: ChainReport, after: ChainReport, labels: tuple[str, str]
    ) -> tuple[dict[str, Any], str]:
        """Two evaluations chain by chain, and the table."""
        comparison = compare_chains(before, after)
        return comparison, chain_comparison_table(comparison, labels)

    def _evaluation_chains(self) -> list[Chain]:
        count = self.options.development_chains
        if count is None:
            return benchmark_sequences(self.options.benchmark_chains)
        return training_sequences(derive_seed(0, "chains", "development") % 2**31, count)

    def _sentences(
        self, split: Literal["training", "validation"]
    ) -> Mapping[str, Sequence[str]] | None:
        return load_sentences(self.options.checkout, split) if self.options.checkout else None
