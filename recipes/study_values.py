"""Compare ways to train the value model, on the policy's own failures.

    python recipes/study_values.py
    python recipes/study_values.py only_task_sets=[state_hard] seeds=[60,61]
    python recipes/study_values.py methods=[demonstrations,failures,rollouts]

For each task set and seed it records demonstrations, clones a policy and fine-tunes it by plain
PPO. The policy then plays ``curve_episodes`` episodes per task: as cloned, after 40% of
``ppo.env_steps``, and at the end. Each method trains a value model on the same demonstrations and,
where it takes them, the same rollouts of the cloned policy. What counts is the area under the ROC
curve (ROC-AUC) of its value of the episodes' last states, successes against failures, the mean over
the tasks with three of each at least. No value model has seen these episodes, nor their initial
states: an episode that begins with an observation with which a trained one begins is left out.

What is there in ``<output>`` is not made again. Writes ``<output>/report``: ``report.md``,
``results.json`` and an image. Methods and task sets: ``conf/study_values.yaml``.
"""

from __future__ import annotations

import copy
import logging
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from rftf_torchrl import (
    CellError,
    ConfigError,
    Demonstrations,
    Episode,
    Interval,
    PolicySpecProtocol,
    RunConfig,
    StudyConfig,
    TemporalValueModel,
    acting_policy,
    check_study,
    derive_seed,
    final_value_auc,
    keys,
    label_outcomes,
    make_simulator,
    markdown_table,
    own_folder,
    prepare_output,
    recipe,
    register,
    run_report,
    seed_everything,
    split_trajectories,
    task_names,
    write_json,
    write_text,
)
from rftf_torchrl.configs.artefacts import need_pretrained, whole_demos
from rftf_torchrl.configs.episodes import episode_collector
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.envs.one_thread import one_thread
from rftf_torchrl.evaluation import _figures as figures
from rftf_torchrl.evaluation.report import image, interval, number
from rftf_torchrl.recipes.collect_demos import collect
from rftf_torchrl.recipes.compare import forget_command, run_config
from rftf_torchrl.recipes.evaluate import add_values
from rftf_torchrl.recipes.finetune import finetune
from rftf_torchrl.recipes.study_cells import deciding, digest, versions
from rftf_torchrl.recipes.train_bc import clone
from rftf_torchrl.recipes.train_value import cloned_rollouts, fit, rollout_episodes, untrained
from rftf_torchrl.recipes.value_steps import calibrate
from rftf_torchrl.study.collection import other_versions
from rftf_torchrl.study.intervals import Difference, paired_difference
from rftf_torchrl.weights_file import read_safetensors, write_safetensors

logger = logging.getLogger("study_values")

POLICIES = ("cloned", "mid", "late")
VERSIONS = "versions.json"
UNREAD = ("curve_every", "levels", "resamples", "workers", "timeout")
MID = 0.4
FEWEST = 3
"""Successes, and failures, of a task that counts."""

Found = dict[str, Any]

READING = """\
Of each policy's last states, the area under the ROC curve of the value, successes against failures,
the mean over the tasks that have three of each at least (0.5 is chance). The table has the mean
over seeds and Student's 95% interval. The difference to A is paired by seed, in the mean over the
three policies. *Detectable* is the true difference that so many seeds find in four of five
cases."""


def file_of(config: RunConfig, policy: str) -> Path:
    """The episodes of a policy."""
    return Path(config.output, f"{policy}.safetensors")


def play(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol, name: str, per_task: int
) -> None:
    """Play a policy's episodes and keep what a value model reads of them."""
    seed = derive_seed(config.seed, f"v{name}")
    episodes = [
        Episode(task, derive_seed(seed, task, number) % 2**31)
        for task in config.env.tasks
        for number in range(per_task)
    ]
    with episode_collector(config, "train", policy, spec) as collector:
        data = label_outcomes(collector.collect(episodes, seed=seed))
    read = ["observation", "instruction"]
    kept = data.select(*read, keys.TASK_ID, keys.TRAJECTORY)
    kept["next"] = data["next"].select(*read, keys.SUCCESS, "done")
    tensors = kept.flatten_keys(".").to_dict()
    write_safetensors(file_of(config, name), tensors, {})


def played(config: RunConfig, name: str) -> TensorDictBase:
    tensors, _ = read_safetensors(file_of(config, name))
    found: TensorDictBase = TensorDict(tensors, [len(next(iter(tensors.values())))])
    return found.unflatten_keys(".")


def make_start(config: RunConfig, per_task: int) -> None:
    """Demonstrations, the policies and their episodes; a step that a kill ended is done again."""
    if not config.folder.policy.is_file():
        need_pretrained(config)
        shutil.rmtree(config.output, ignore_errors=True)
        prepare_output(config.output)
        write_record(Path(config.output, VERSIONS), versions())
        collect(config)
        clone(config)
    policy, spec = acting_policy(config, config.folder.policy)
    if not file_of(config, "cloned").is_file():
        play(config, policy, spec, "cloned", per_task)
    kept: dict[str, nn.Module] = {}

    def keep(iteration: int, policy: nn.Module, progress: dict[str, int]) -> None:
        if "mid" not in kept and progress["env_steps"] >= MID * (config.ppo.env_steps or math.inf):
            kept["mid"] = copy.deepcopy(policy)
        kept["late"] = policy

    if config.ppo.env_steps is None:
        raise ConfigError("ppo.env_steps=null: the policy in the middle is that of its budget")
    shutil.rmtree(config.tuned.root, ignore_errors=True)
    finetune(config, on_iteration=keep)
    if "mid" not in kept:
        raise ConfigError(
            f"ppo.iterations={config.ppo.iterations} ended before {MID:.0%} of "
            f"ppo.env_steps={config.ppo.env_steps:,}: raise it, or lower the budget"
        )
    for name in ("mid", "late"):
        play(config, kept[name].eval(), spec, name, per_task)


def unseen(trained: list[TensorDictBase], tested: TensorDictBase) -> TensorDictBase:
    """The tested episodes that begin with an observation with which no trained one begins."""

    def start(episode: TensorDictBase) -> bytes:
        first = episode[0]["observation"].flatten_keys()
        return b"".join(first[key].numpy().tobytes() for key in sorted(first.keys()))

    seen = {start(episode) for episode in trained}
    kept = [part for part in split_trajectories(tested).values() if start(part) not in seen]
    return torch.cat(kept)


def with_rollouts(config: RunConfig, per_task: int) -> RunConfig:
    value = replace(config.value, failures=1.0, successes=True, rollout_episodes=per_task)
    return replace(config, value=value)


def value_model(
    config: RunConfig, train: Demonstrations, rollouts: list[TensorDictBase]
) -> TemporalValueModel:
    """Train the model of a method."""
    shutil.rmtree(config.folder.value, ignore_errors=True)  # the curve of the one before
    seed_everything(derive_seed(config.seed, "value"))
    model = cast(TemporalValueModel, untrained(config, train))
    fit(config, model, train, (), rollouts)
    calibrate(config, model, train)
    return model


def measure(config: RunConfig, rollouts: list[TensorDictBase], steps: int) -> Found:
    """What the value model of a method says of the ends of the policies' episodes."""
    started = time.process_time()
    tests = {policy: played(config, policy) for policy in POLICIES}
    train = whole_demos(config).select(split="train")
    shown = [train.frames[episode.start : episode.stop] for episode in train.episodes]
    tests = {policy: unseen([*shown, *rollouts], data) for policy, data in tests.items()}
    model = value_model(config, train, rollouts)
    found: Found = {"cpu_seconds": time.process_time() - started, "simulator_steps": steps}
    names = task_names(make_simulator(config.env), config.env.tasks)
    for policy, data in tests.items():
        tasks = final_value_auc(add_values(data, model), task_names=names)["tasks"]
        found[policy] = {
            task: {name: row[name] for name in ("final_auc", "successes", "failures")}
            for task, row in tasks.items()
        }
    return found


def area(tasks: Found) -> float:
    """The mean over the tasks that have enough of both outcomes; NaN where none has."""
    counted = [
        row["final_auc"]
        for row in tasks.values()
        if min(row["successes"], row["failures"]) >= FEWEST
    ]
    return fmean(counted) if counted else math.nan


def shared_settings(config: RunConfig) -> list[Any]:
    """What decides the demonstrations and the policies, which all methods share."""
    parts = (config.env, config.demos, config.policy, config.cloning, config.ppo, config.reward)
    settings: list[Any] = [asdict(part) for part in (*parts, config.balance)]
    return [*settings, config.critic, config.augment, config.precision, config.device]


def check_methods(study: StudyConfig, folders: Sequence[str]) -> None:
    """Refuse a method of another start than the others'.

    Raises:
        ConfigError: naming it.
    """
    for task_set in study.task_sets:
        configs = {name: run_config(study, task_set, name, folders) for name in study.methods}
        first, shared = study.methods[0], shared_settings(configs[study.methods[0]])
        for name, config in configs.items():
            if shared_settings(config) != shared:
                raise ConfigError(
                    f"method {name} of {task_set} has other demonstrations or policies than "
                    f"{first}, and all are measured on the same: let its settings be of value alone"
                )


def run_seed(
    study: StudyConfig, task_set: str, seed: int, folders: Sequence[str] = ()
) -> dict[str, Found]:
    """What was found of each method with one seed; makes what is not there."""
    configs = {
        method: replace(run_config(study, task_set, method, folders), seed=seed)
        for method in study.methods
    }
    first = next(iter(configs.values()))
    settings = [*shared_settings(first), study.curve_episodes]
    output = Path(study.output, "starts", task_set, f"seed{seed}-{digest(settings)[:8]}")
    start = replace(first, output=str(output))
    made = output / VERSIONS
    if made.is_file() and (problems := other_versions(output, read_record(made), versions())):
        raise CellError(problems[0])
    if not all(file_of(start, name).is_file() for name in POLICIES):
        logger.info("%s, seed %d: demonstrations and policies", task_set, seed)
        make_start(start, study.curve_episodes)
    rollouts: dict[int, tuple[list[TensorDictBase], int]] = {}
    found = {}
    for method, config in configs.items():
        file = output / f"{method}-{digest(deciding(config))[:8]}.json"
        if not file.is_file():
            config = replace(config, output=str(output))
            own = config.value.rollout_episodes * (len(rollout_episodes(config)) > 0)
            if own not in rollouts:
                rollouts[own] = cloned_rollouts(with_rollouts(config, own)) if own else ([], 0)
            write_record(file, measure(config, *rollouts[own]))
        found[method] = read_record(file)
        areas = ", ".join(f"{name} {area(found[method][name]):.3f}" for name in POLICIES)
        logger.info("%s, seed %d, %s: %s", task_set, seed, method, areas)
    return found


def student(scores: Tensor, least: float = 0.0) -> Difference:
    """Mean over the seeds that have an area, and Student's interval, cut to what can be."""
    seen = scores[~scores.isnan()]
    if not len(seen):
        return Difference(math.nan, math.nan, math.nan, 0, math.nan)
    return paired_difference(seen, torch.zeros_like(seen), bounds=(least, 1.0))


def shown(found: Interval) -> str:
    return f"{number(found.estimate)} ({interval(found.low, found.high)})"


def result_table(study: StudyConfig, seeds: list[dict[str, Found]]) -> str:
    """A row a method: areas, and the paired difference of their means to the baseline's."""
    scores = {
        method: torch.tensor([[area(found[method][name]) for name in POLICIES] for found in seeds])
        for method in study.methods
    }
    rows = []
    for method, own in scores.items():
        differ = own.nanmean(-1) - scores[study.baseline].nanmean(-1)
        found = student(differ, -1.0)
        steps = fmean(found[method]["simulator_steps"] for found in seeds)
        rows.append(
            [
                study.catalogue[method].label,
                f"{steps:,.0f}",
                *(shown(student(column)) for column in own.T),
                "" if method == study.baseline else f"{found.estimate:+.3f}",
                "" if method == study.baseline else interval(found.low, found.high, "+.3f"),
                "" if method == study.baseline else number(found.detectable),
            ]
        )
    header = ["trained on", "simulator steps", *POLICIES, "mean, less A's", "95%", "detectable"]
    return markdown_table(header, rows)


def episode_table(study: StudyConfig, seeds: list[dict[str, Found]]) -> str:
    """Of each policy and seed, successes and failures of the tasks that count."""
    rows = []
    for seed, found in zip(study.seeds, seeds, strict=True):
        row = [str(seed)]
        for name in POLICIES:
            tasks = found[study.baseline][name].values()
            won, lost = (sum(task[what] for task in tasks) for what in ("successes", "failures"))
            counted = sum(min(task["successes"], task["failures"]) >= FEWEST for task in tasks)
            row.append(f"{won} + {lost}, {counted} tasks")
        rows.append(row)
    return markdown_table(["seed", *POLICIES], rows)


def draw(study: StudyConfig, everything: dict[str, list[dict[str, Found]]], path: Path) -> Path:
    """Dots for seeds, and the mean with its interval; a panel a task set and policy."""
    panels = [(task_set, name) for task_set in everything for name in POLICIES]
    rows, columns = len(everything), len(POLICIES)
    figure = figures.new_figure(12, rows * (1.2 + 0.28 * len(study.methods)), None)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for ax, (task_set, name) in zip(axes, panels, strict=True):
        figures.style(ax)
        ax.set_title(f"{task_set}, {name} policy", fontsize=11.5)
        ax.set_xlabel("ROC-AUC of last states", fontsize=11.5)
        for place, method in enumerate(study.methods):
            scores = torch.tensor([area(found[method][name]) for found in everything[task_set]])
            ax.plot(scores, [place] * len(scores), "o", color=figures.GREY, alpha=0.4, markersize=4)
            found = student(scores)
            ends = [[found.estimate - found.low], [found.high - found.estimate]]
            ax.errorbar(found.estimate, place, xerr=ends, fmt="o", color=figures.BLUE)
        ax.axvline(0.5, color=figures.GREY, linewidth=1, linestyle=(0, (1, 3)))
        labels = [study.catalogue[method].label for method in study.methods]
        ax.set_yticks(range(len(labels)), labels)
        ax.set_xlim(0, 1.02)
    axes[0].invert_yaxis()
    return figures.save(figure, path)


def study_values(study: StudyConfig, folders: Sequence[str] = ()) -> Path:
    """Run what is missing, and write the report; ``folders`` hold YAML of the user's."""
    check_methods(study, folders)
    with own_folder(study.output, "study_values"), one_thread():
        everything = {
            task_set: [run_seed(study, task_set, seed, folders) for seed in study.seeds]
            for task_set in study.task_sets
        }
    folder = prepare_output(study.report or Path(study.output, "report"))
    sections = {"How to read it": READING}
    for task_set, seeds in everything.items():
        sections[task_set] = result_table(study, seeds)
        sections[f"{task_set}: successes + failures by seed"] = episode_table(study, seeds)
    picture = draw(study, everything, folder / "value_models.png")
    sections["Dots: seeds. Bars: mean and 95% interval."] = image(picture.name)
    write_json(folder / "results.json", {"seeds": study.seeds, "found": everything})
    text = run_report(study.title, sections)
    write_text(folder / "report.md", text)
    logger.info("\n%s", text)
    return folder


def check(config: DictConfig) -> StudyConfig:
    """A study of learning curves has settings that this one does not read."""
    study = check_study(config)
    given = [name for name in UNREAD if getattr(study, name) != getattr(StudyConfig(), name)]
    if given:
        raise ConfigError(f"study_values.py does not read {', '.join(given)}: leave it out")
    return study


@recipe("study_values", StudyConfig, check)
def command(study: StudyConfig) -> None:
    study_values(study, forget_command())


def main() -> None:
    register("study_schema", StudyConfig)
    command()


if __name__ == "__main__":
    main()
