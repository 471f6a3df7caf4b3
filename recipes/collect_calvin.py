"""Record CALVIN demonstrations: a scripted expert walks training chains.

    python recipes/collect_demos.py env=calvin_state output=outputs/calvin

Writes ``<output>/calvin/{training,validation}`` in CALVIN's own format, ``<output>/demos`` as the
other recipes read it, and ``<output>/states.npz``: where every task of further chains began, in the
scene of fine-tuning, which starts its episodes there. A cloned policy knows the demonstrations' own
starts by heart and has little to learn from them. None of it is a scene of the benchmark.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from rftf_torchrl import (
    CalvinDataset,
    CalvinWriter,
    ChainToRecord,
    RecordedTask,
    RunConfig,
    StateBank,
    absolute_action,
    benchmark_scene,
    derive_seed,
    load_sentences,
    progress_bar,
    record_chains,
    to_demonstrations,
    training_sequences,
)
from rftf_torchrl.calvin.data.format import INTERRUPTED_FILE
from rftf_torchrl.calvin.tasks import get_task
from rftf_torchrl.recipes.simulators import states_file, tuned_tasks

logger = logging.getLogger("collect_calvin")


def chains_to_record(config: RunConfig, split: str) -> list[ChainToRecord]:
    training = split == "training"
    count = config.demos.chains if training else config.demos.held_out_chains
    scenes = sorted(config.demos.scenes or config.env.scene) if training else [config.env.scene]
    seed = derive_seed(config.seed, "chains", split) % 2**31
    return [
        ChainToRecord(
            chain,
            seed + number,
            scene=scenes[number * len(scenes) // count],
            noise=config.demos.noise,
            image_size=config.env.image_size,
            wrist_size=config.env.wrist_size,
        )
        for number, chain in enumerate(training_sequences(seed, count))
    ]


def write_task(writer: CalvinWriter, task: RecordedTask, sentence: str | None) -> None:
    """Write a task's frames, annotated where there is a sentence."""
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
    if sentence is not None:
        writer.annotate(frames[0], frames[-1] + 1, task.task, sentence)
    writer.end_episode()


def usable(task: RecordedTask, wanted: Collection[str]) -> bool:
    """Whether a recorded task is wanted and does not begin in a scene of the benchmark."""
    return task.task in wanted and benchmark_scene(task.scene_obs[0]) is None


def collect_starts(config: RunConfig) -> int:
    """Walk chains that gave no demonstration, keep where each task began, and return the steps."""
    seed = derive_seed(config.seed, "chains", "states") % 2**31
    jobs = [
        ChainToRecord(chain, seed + number, scene=config.env.scene)
        for number, chain in enumerate(training_sequences(seed, config.demos.start_chains))
    ]
    wanted = tuned_tasks(config)
    starts: list[RecordedTask] = []
    steps = 0
    with progress_bar(len(jobs), f"starts in {config.env.scene}") as bar:
        for tasks in record_chains(jobs, workers=config.collector.workers):
            steps += sum(len(task.actions) for task in tasks)
            starts += [task for task in tasks if usable(task, wanted)]
            bar.update()
    missing = set(wanted) - {task.task for task in starts}
    if missing:
        raise ValueError(
            f"no task of {len(jobs)} chains was {', '.join(sorted(missing))}, so fine-tuning could "
            "not start there: raise demos.start_chains, or leave these tasks out of ppo.tasks"
        )
    StateBank(
        np.stack([task.robot_obs[0] for task in starts]),
        np.stack([task.scene_obs[0] for task in starts]),
        np.array([get_task(task.task).id for task in starts]),
        np.array([task.depth for task in starts]),
        config.env.scene,
    ).save(states_file(config))
    return steps


def recording_settings(config: RunConfig, split: str) -> dict[str, Any]:
    """All that decides what a split's recording holds."""
    demos, env, training = config.demos, config.env, split == "training"
    sizes = ("chains", "per_task") if training else ("held_out_chains", "held_out_per_task")
    settings = {f"demos.{name}": getattr(demos, name) for name in (*sizes, "noise")}
    settings |= {f"env.{name}": getattr(env, name) for name in ("image_size", "wrist_size")}
    settings["demos.scenes"] = (demos.scenes or env.scene) if training else env.scene
    settings["CALVIN's own sentences"] = env.checkout is not None
    return {"seed": config.seed, **settings, "env.tasks": list(env.tasks)}


def refuse_other_settings(folder: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [
        f"{key}={earlier[key]}, not {value}" for key, value in now.items() if earlier[key] != value
    ]
    if changed:
        raise ValueError(
            f"{folder} is a recording that stopped early, with {'; '.join(changed)}. It goes on "
            "with its own settings; move or remove the folder, and it is recorded anew"
        )


def record_split(config: RunConfig, split: str, root: Path) -> int:
    """Walk the split's chains, write ``per_task`` of each task, as many a scene; return the steps.

    Chains that an interrupted recording has are not walked again.
    """
    training = split == "training"
    per_task = config.demos.per_task if training else config.demos.held_out_per_task
    sentences = load_sentences(config.env.checkout, split) if config.env.checkout else {}
    jobs = chains_to_record(config, split)
    settings = recording_settings(config, split)
    share = -(-per_task // len({job.scene for job in jobs}))
    with (
        CalvinWriter(root, split, scene=jobs[0].scene, resume=True) as writer,
        progress_bar(len(jobs), f"{split} chains") as bar,
    ):
        done, whole, steps, kept = 0, 0, 0, {job.scene: dict[str, int]() for job in jobs}
        if writer.progress:
            refuse_other_settings(writer.folder, writer.progress["settings"], settings)
            done, whole, steps, kept = (
                writer.progress[name] for name in ("done", "whole", "steps", "kept")
            )
        bar.update(done)
        recorded = record_chains(jobs[done:], workers=config.collector.workers)
        for job, tasks in zip(jobs[done:], recorded, strict=True):
            writer.set_scene(job.scene)
            rng = np.random.default_rng(derive_seed(config.seed, "sentences", split, done))
            for task in tasks:
                count = kept[job.scene].get(task.task, 0)
                if count < share and usable(task, config.env.tasks):
                    kept[job.scene][task.task] = count + 1
                    choices = sentences.get(task.task, [get_task(task.task).instruction])
                    write_task(writer, task, str(rng.choice(choices)))
            done += 1
            whole += len(tasks) == len(job.chain.tasks)
            steps += sum(len(task.actions) for task in tasks)
            writer.mark(settings=settings, done=done, whole=whole, steps=steps, kept=kept)
            bar.update()
        total = {
            name: sum(tasks.get(name, 0) for tasks in kept.values()) for name in config.env.tasks
        }
        missing = [name for name, count in total.items() if not count]
        if training and missing:
            raise ValueError(
                f"the {len(jobs)} training chains have no {', '.join(missing)}. Remove "
                f"{root / split} and raise demos.chains, or remove its {INTERRUPTED_FILE} and "
                "leave these tasks out of env.tasks"
            )
    lacking = {name: count for name, count in total.items() if count < per_task}
    logger.info("%s: %d of %d chains done to the end", split, whole, len(jobs))
    if lacking:
        logger.warning("fewer than %d %s demonstrations: %s", per_task, split, lacking)
    return steps


def collect_calvin(config: RunConfig, out: Path) -> int:
    """Record what is missing, or go on where it stopped, and return the control steps used."""
    root = Path(config.output, "calvin")
    steps = 0
    if not out.exists():
        splits = ["training"] + ["validation"] * (config.demos.held_out_per_task > 0)
        for split in splits:
            if not (root / split).exists() or not CalvinDataset(root, split).complete:
                steps += record_split(config, split, root)
        to_demonstrations(
            root,
            out,
            split=splits,
            image_size=config.env.image_size,
            wrist_size=config.env.wrist_size,
            tasks=config.env.tasks,
            test_states="refuse",
        )
    if not states_file(config).exists():
        steps += collect_starts(config)
    return steps
