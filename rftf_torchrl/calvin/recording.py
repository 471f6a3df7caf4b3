"""Record demonstrations and starts: a scripted expert plays training chains.

Writes beside the demonstrations ``calvin/{training,validation}`` in CALVIN's own format, and
``states.npz``: where every task of further chains began, in the scene of fine-tuning, which starts
its episodes there. A cloned policy knows the demonstrations' own starts by heart and has little to
learn from them. None of it is a scene of the benchmark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from rftf_torchrl.calvin.data.convert import to_demonstrations
from rftf_torchrl.calvin.data.format import INTERRUPTED_FILE, absolute_action
from rftf_torchrl.calvin.data.reader import CalvinDataset
from rftf_torchrl.calvin.data.writer import CalvinWriter
from rftf_torchrl.calvin.expert.record import (
    ChainToRecord,
    RecordedChain,
    RecordedTask,
    record_chains,
)
from rftf_torchrl.calvin.install import require_calvin_env
from rftf_torchrl.calvin.options import CalvinOptions
from rftf_torchrl.calvin.sequences import training_chains
from rftf_torchrl.calvin.settings import Scene
from rftf_torchrl.calvin.state_bank import StateBank
from rftf_torchrl.calvin.tasks import get_task
from rftf_torchrl.calvin.walked_chains import WalkedChain, WalkedChains, usable
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.envs.simulator import EnvConfig, Recording
from rftf_torchrl.envs.takeover import Takeover
from rftf_torchrl.evaluation.fingerprint import policy_digest
from rftf_torchrl.training.progress import progress_bar
from rftf_torchrl.training.seeding import derive_seed

logger = logging.getLogger(__name__)

MORE_CHAINS = 1000
"""Among so many further chains those are walked that have a task which is missing."""

CalvinSplit = Literal["training", "validation"]
Sentences = Callable[[CalvinSplit], Mapping[str, Sequence[str]] | None]


def states_file(demonstrations: Path) -> Path:
    """Where fine-tuning starts: a file beside the demonstrations."""
    return demonstrations.parent / "states.npz"


def load_starts(demonstrations: Path, scene: Scene, tasks: Collection[str] = ()) -> StateBank:
    """Where fine-tuning starts, of a recording in the scene.

    Args:
        demonstrations: their folder.
        scene: of fine-tuning.
        tasks: that need a start.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the states are of another scene, or a task has none.
    """
    file = states_file(demonstrations)
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no {file}, so episodes have no state to start from: rftf collect-demos "
            "records it, with the same settings"
        )
    bank = StateBank.load(file)
    if bank.scene != scene:
        raise ValueError(
            f"{file} holds states of scene {bank.scene}, and fine-tuning is in scene {scene}, "
            "where furniture and blocks lie elsewhere: give the scene of the recording as "
            "env.options.scene, or record in another folder (output, demos.path)"
        )
    missing = [task for task in tasks if not bank.count(task)]
    if missing:
        raise ValueError(
            f"{file} has no state in which {', '.join(missing)} begins: leave these tasks out of "
            "ppo.tasks, or move the file away, and the starts are recorded again"
        )
    return bank


def write_task(writer: CalvinWriter, task: RecordedTask, sentence: str) -> None:
    """Write and annotate a task's frames."""
    frames = []
    for step in range(len(task.robot_obs)):
        last = step == len(task.actions)
        frames.append(
            writer.add_frame(
                task.robot_obs[step],
                task.scene_obs[step],
                None if last else task.actions[step],
                None if last else absolute_action(task.robot_obs[step + 1]),
                rgb_static=None if task.pictures is None else task.pictures[step],
                rgb_gripper=None if task.wrist_pictures is None else task.wrist_pictures[step],
            )
        )
    writer.annotate(frames[0], frames[-1] + 1, task.task, sentence, takeover=task.takeover)
    writer.end_episode()


def _refuse_other_settings(place: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [
        f"{key}={earlier.get(key)}, not {value}"
        for key, value in now.items()
        if earlier.get(key) != value
    ]
    if changed:
        raise ValueError(
            f"{place} is a recording with {'; '.join(changed)}. It is used, or goes on, with its "
            "own settings; move or remove it, and it is recorded again"
        )


@dataclass(frozen=True)
class ChainRecorder:
    """Records what a run's settings ask for.

    Attributes:
        env: the run's.
        options: the run's.
        recording: how much, and where.
        sentences: CALVIN's own of a split, or ``None`` for this library's.
    """

    env: EnvConfig
    options: CalvinOptions
    recording: Recording
    sentences: Sentences

    def record(self) -> int:
        """Record what is missing, or continue where it stopped.

        Returns:
            The control steps used for the starts, and for the demonstrations unless they were
            there: their own index says it.
        """
        folder, steps = self.recording.folder, 0
        root, scene = folder.parent / "calvin", cast(Scene, self.options.scene)
        if states_file(folder).exists():
            bank = load_starts(folder, scene, self.recording.tuned)
            if bank.made_by and not folder.exists():
                _refuse_other_settings(states_file(folder), bank.made_by, self._start_settings())
        if not folder.exists():
            require_calvin_env()
            splits: list[CalvinSplit] = ["training"]
            held_out = self.recording.held_out_per_task > 0 and self.count("validation") > 0
            splits += ["validation"] * held_out
            for split in splits:
                asked, made_by = self._settings(split), root / f"{split}.json"
                if not (root / split).exists():
                    root.mkdir(parents=True, exist_ok=True)
                    write_record(made_by, asked)
                elif made_by.is_file():
                    earlier = read_record(made_by)
                    if set(self.env.tasks) <= set(earlier["env.tasks"]):  # of it, some are used
                        asked["env.tasks"] = earlier["env.tasks"]
                    _refuse_other_settings(root / split, earlier, asked)
                if not (root / split).exists() or not CalvinDataset(root, split).complete:
                    self._record_split(split, root)
            to_demonstrations(
                root,
                folder,
                split=splits,
                image_size=self.env.image_size,
                wrist_size=self.options.wrist_size,
                tasks=self.env.tasks,
                test_states="refuse",
            )
            steps = sum(CalvinDataset(root, split).simulator_steps for split in splits)
        if not states_file(folder).exists():
            require_calvin_env()
            self.record_starts()
        return steps + load_starts(folder, scene).simulator_steps

    def count(self, split: CalvinSplit) -> int:
        """Chains that a split is asked for."""
        options = self.options
        return options.demo_chains if split == "training" else options.held_out_chains

    def scenes(self, split: CalvinSplit) -> list[Scene]:
        """The scenes of a split."""
        options = self.options
        training = split == "training"
        found = sorted(options.demo_scenes or options.scene) if training else [options.scene]
        return cast(list[Scene], found)

    def chains(self, split: CalvinSplit) -> Iterator[ChainToRecord]:
        """A split's chains, spread over the scenes, and further ones in the last scene."""
        count, scenes = self.count(split), self.scenes(split)
        seed = derive_seed(self.recording.seed, "chains", split) % 2**31
        for number, chain in enumerate(training_chains(seed)):
            yield ChainToRecord(
                chain,
                seed + number,
                scene=scenes[min(number * len(scenes) // count, len(scenes) - 1)],
                noise=self.recording.noise,
                image_size=self.env.image_size,
                wrist_size=self.options.wrist_size,
            )

    def _walk(
        self,
        jobs: Iterator[ChainToRecord],
        done: Collection[int],
        count: int,
        missing: Callable[[], Collection[str]],
        takeover: Takeover | None = None,
    ) -> Iterator[tuple[int, ChainToRecord, RecordedChain]]:
        """Walk the first ``count`` chains that are not done, then more while a task is missing."""
        numbered = enumerate(islice(jobs, count + MORE_CHAINS))
        ahead = (item for item in numbered if item[0] not in done)

        def one_more() -> list[tuple[int, ChainToRecord]]:
            wanted = set(missing())
            found = (item for item in ahead if wanted & set(item[1].chain.tasks))
            return list(islice(found, 1)) if wanted else []

        left = count - sum(number < count for number in done)
        batch = list(islice(ahead, left)) or one_more()
        while batch:
            recorded = record_chains(
                [job for _, job in batch],
                workers=self.recording.workers,
                timeout=self.recording.timeout,
                max_restarts=self.recording.max_restarts,
                takeover=takeover,
                sentences=self.sentences("training") if takeover else None,
            )
            for (number, job), chain in zip(batch, recorded, strict=True):
                yield number, job, chain
            batch = one_more()

    def record_starts(self) -> None:
        """Play chains without recording them, and store the states in which each task began.

        Chains that an interrupted call has played are not played again.
        """
        count, scene = self.options.start_chains, cast(Scene, self.options.scene)
        seed = derive_seed(self.recording.seed, "chains", "states") % 2**31
        jobs = (
            ChainToRecord(chain, seed + number, scene=scene)
            for number, chain in enumerate(training_chains(seed))
        )
        wanted = self.recording.tuned
        file = states_file(self.recording.folder).with_name("states_interrupted.jsonl")
        made_by = self._start_settings()
        walked = WalkedChains(file, {**made_by, "scene": scene})

        def missing() -> set[str]:
            return set(wanted) - walked.tasks()

        with progress_bar(count, f"starts in scene {scene}", unit="chains") as bar:
            bar.update(len(walked.results))
            done = tuple(walked.results)
            for number, _, chain in self._walk(jobs, done, count, missing):
                walked.add(WalkedChain.of(number, chain))
                bar.update()
        if missing():
            raise ValueError(
                f"the expert did no {', '.join(sorted(missing()))} in {count:,} chains and those "
                f"of the {MORE_CHAINS:,} after them that have it, so fine-tuning could not start "
                "there: leave these tasks out of ppo.tasks"
            )
        walked.bank(scene, wanted, made_by).save(states_file(self.recording.folder))
        file.unlink()

    def _start_settings(self) -> dict[str, Any]:
        """What decides the starts besides the scene and the tasks, which the bank names."""
        return {
            "seed": self.recording.seed,
            "env.options.start_chains": self.options.start_chains,
        }

    def _settings(self, split: CalvinSplit) -> dict[str, Any]:
        """All that decides what a split's recording holds."""
        recording, options = self.recording, self.options
        takeover = recording.takeover if split == "training" else None
        settings: dict[str, Any] = {"seed": recording.seed}
        if split == "training":
            settings["env.options.demo_chains"] = options.demo_chains
            settings["demos.per_task"] = recording.per_task
            settings["env.options.demo_scenes"] = options.demo_scenes or options.scene
        else:
            settings["env.options.held_out_chains"] = options.held_out_chains
            settings["demos.held_out_per_task"] = recording.held_out_per_task
            settings["env.options.scene"] = options.scene
        return settings | {
            "demos.noise": recording.noise,
            "demos.takeover": None if takeover is None else policy_digest(takeover.policy),
            "the policy's most decisions": None if takeover is None else takeover.most,
            "env.image_size": self.env.image_size,
            "env.options.wrist_size": options.wrist_size,
            "CALVIN's own sentences": options.checkout is not None,
            "env.tasks": list(self.env.tasks),
        }

    def _record_split(self, split: CalvinSplit, root: Path) -> None:
        """Walk the split's chains and write ``per_task`` of each task, as many a scene.

        Chains that an interrupted recording has are not walked again.
        """
        recording, training = self.recording, split == "training"
        per_task = recording.per_task if training else recording.held_out_per_task
        sentences = self.sentences(split) or {}
        chains, scenes = self.count(split), self.scenes(split)
        settings = self._settings(split)
        share = -(-per_task // len(scenes))
        with (
            CalvinWriter(root, split, scene=scenes[0], resume=True) as writer,
            progress_bar(chains, f"{split} demonstrations", unit="chains") as bar,
        ):
            done = whole = 0
            kept: dict[str, dict[str, int]] = {scene: {} for scene in scenes}
            if writer.progress:
                _refuse_other_settings(writer.folder, writer.progress["settings"], settings)
                done, whole, writer.simulator_steps, kept = (
                    writer.progress[name] for name in ("done", "whole", "steps", "kept")
                )
            bar.update(min(done, chains))

            def missing() -> list[str]:
                """Tasks to go on for: each that trains, and any one that is held out."""
                found = {task for tasks in kept.values() for task in tasks}
                wanted = self.env.tasks if training or not found else []
                return [task for task in wanted if task not in found]

            takeover = recording.takeover if training else None
            walk = self._walk(self.chains(split), range(done), chains, missing, takeover)
            for number, job, chain in walk:
                writer.set_scene(job.scene)
                rng = np.random.default_rng(derive_seed(recording.seed, "sentences", split, number))
                for task in chain.tasks:
                    count = kept[job.scene].get(task.task, 0)
                    if count < share and task.task in self.env.tasks and usable(task):
                        kept[job.scene][task.task] = count + 1
                        choices = sentences.get(task.task, [get_task(task.task).instruction])
                        write_task(writer, task, str(rng.choice(choices)))
                whole += len(chain.tasks) == len(job.chain.tasks)
                writer.simulator_steps += chain.steps
                progress = {"done": number + 1, "whole": whole, "steps": writer.simulator_steps}
                writer.mark(settings=settings, **progress, kept=kept)
                bar.update()
            total = {
                name: sum(tasks.get(name, 0) for tasks in kept.values()) for name in self.env.tasks
            }
            if missing():
                raise ValueError(
                    f"the expert did no {', '.join(missing())} in {chains:,} {split} chains and "
                    f"those of the {MORE_CHAINS:,} after them that have it: remove "
                    f"{root / split / INTERRUPTED_FILE} and leave these tasks out of env.tasks, "
                    "and what was recorded is used"
                )
        lacking = {name: count for name, count in total.items() if count < per_task}
        logger.info("%s: %d chains done to the end", split, whole)
        if lacking:
            found = ", ".join(f"{count} of {name}" for name, count in lacking.items())
            logger.warning("fewer than %d %s demonstrations per task: %s", per_task, split, found)
