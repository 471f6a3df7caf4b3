"""Report how good a value model is, before anyone trains on it.

    python recipes/value_report.py output=outputs/run
    python recipes/value_report.py output=outputs/run value.path=other/value.safetensors
    python recipes/value_report.py output=outputs/run data=my_videos   # no simulator

Shows the value model the held-out demonstrations of ``<output>/demos`` (in order, reversed,
shuffled, and under another task's instruction) and new rollouts of the cloned policy,
``evaluation.episodes_per_task`` per task. Their states are drawn as in fine-tuning, and the model
was trained on none of them. Evaluation's own states are left alone, so that they can still judge
the policy. In CALVIN the rollouts start where tasks of the training chains began.

With ``data=...`` it shows the model the held-out episodes of that data instead, and where some of
them are labelled as failures, compares those with the successes; there are no rollouts.

Writes ``<output>/value_report``: ``report.md`` and ``report.json``, the value over progress, the
calibration curve, the instructions' confusion matrix, videos with the value drawn below them, and
the value of every demonstration's frame in LeRobot's columns as ``progress.parquet``, where
there is no ``data=``.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import (
    Demonstrations,
    Episode,
    RunConfig,
    ScoredEpisode,
    acting_policy,
    derive_seed,
    keys,
    make_simulator,
    overlay_value,
    plot_calibration,
    plot_confusion,
    plot_value_over_progress,
    prepare_output,
    recipe,
    resolve_device,
    run_report,
    score_demonstrations,
    score_labelled,
    score_rollouts,
    side_by_side,
    split_trajectories,
    task_instructions,
    task_names,
    value_report,
    value_report_tables,
    warn_if_blind,
    write_json,
    write_progress_table,
    write_text,
    write_video,
)
from rftf_torchrl.configs.artefacts import (
    load_value_model,
    need,
    needs_file,
    refuse_to_overwrite,
    training_data,
)
from rftf_torchrl.configs.episodes import counted, episode_collector
from rftf_torchrl.configs.record import name_of, refuse_other_split
from rftf_torchrl.configs.run import stage
from rftf_torchrl.evaluation.progress_table import progress_path
from rftf_torchrl.evaluation.report import film_images, image
from rftf_torchrl.evaluation.video import enlarge, pane_width

logger = logging.getLogger("value_report")

Seen = tuple[ScoredEpisode, TensorDictBase]
MOST_TASKS = 20
"""Of data from outside, so many instructions are compared with each other."""


def held_out(demonstrations: Demonstrations, folder: Path) -> Demonstrations:
    """The demonstrations that no value model was trained on.

    Raises:
        ValueError: when there are none.
    """
    if not any(episode.split == "test" for episode in demonstrations.episodes):
        raise ValueError(
            f"{folder} has no held-out demonstrations: record them with demos.held_out_per_task=3 "
            "in another folder, or of data from outside hold out a share (data.held_out) "
            "and do not give all of them split=train"
        )
    return demonstrations.select(split="test")


def fresh_rollouts(config: RunConfig) -> tuple[TensorDictBase, int]:
    """The cloned policy's sampled episodes, and the simulator steps that they cost."""
    policy, spec = acting_policy(config, config.folder.policy)
    simulator, seed = make_simulator(config.env), derive_seed(config.seed, "value_report")
    episodes = [
        Episode(task, derive_seed(seed, task, number) % 2**31)
        for task in (config.tuned_tasks if hasattr(simulator, "check_starts") else config.env.tasks)
        for number in range(config.evaluation.episodes_per_task)
    ]
    with (
        episode_collector(config, "train", policy, spec) as collector,
        counted(len(episodes), "rollouts") as on_episode,
    ):
        data = collector.collect(episodes, seed=seed, on_episode=on_episode)
    return data, int(data["next", "executed"].sum()) * simulator.steps_per_action


def write_films(
    config: RunConfig,
    seen: list[Seen],
    titles: dict[str, str],
    folder: Path,
) -> list[Path]:
    """For the first tasks, a demonstration, a success and a failure side by side."""
    prepare_output(folder)
    paths = []
    for name, title in list(titles.items())[: config.evaluation.video_episodes]:
        shown: dict[str, tuple[ScoredEpisode, torch.Tensor]] = {}
        for episode, states in seen:
            if episode.task == name:
                shown.setdefault(episode.source, (episode, states[keys.IMAGE]))
        if not shown:
            continue
        width = max(pane_width(len(shown)), config.evaluation.video_size)
        own = "policy" if config.data.path is None else None
        films = [
            overlay_value(
                enlarge(frames, width),
                episode.values,
                success=source != "failure",
                title=title,
                label=source if source == "demonstration" else own or source,
            )
            for source, (episode, frames) in shown.items()
        ]
        file = re.sub(r"[^\w.-]+", "_", name)[:80]  # an instruction may hold anything
        paths.append(write_video(reduce(side_by_side, films), folder / f"{file}.mp4"))
    return paths


def states_of(demonstrations: Demonstrations) -> list[TensorDictBase]:
    return [demonstrations.frames[each.start : each.stop] for each in demonstrations.episodes]


def show_rollouts(
    config: RunConfig, value_model: TensorDictModuleBase, instructions: dict[str, TensorDictBase]
) -> tuple[list[Seen], dict[str, Any]]:
    """Fresh rollouts with their values, and what was used."""
    rollouts, steps = fresh_rollouts(config)
    names = task_names(make_simulator(config.env), config.env.tasks)
    played = score_rollouts(value_model, rollouts, instructions, task_names=names)
    states = []
    for part in split_trajectories(rollouts).values():
        ends = [part, part[-1:]["next"]]
        states.append(torch.cat([end.select(keys.IMAGE, strict=False) for end in ends]))
    used = {"policy": name_of(config, config.folder.policy), "simulator_steps": steps}
    return list(zip(played, states, strict=True)), used


def show_labelled(
    config: RunConfig, value_model: TensorDictModuleBase, test: Demonstrations
) -> tuple[list[Seen], dict[str, Any]]:
    """Held-out episodes whose outcome is labelled, where some are failures, and what was used."""
    used = {"data": config.data.path, "held_out_episodes": len(test.episodes)}
    if all(episode.success is not False for episode in test.episodes):
        return [], used
    labelled = tuple(episode for episode in test.episodes if episode.success is not None)
    test = replace(test, episodes=labelled)
    return list(zip(score_labelled(value_model, test), states_of(test), strict=True)), used


def model_name(config: RunConfig) -> str:
    """The value model's file, or the kind and options of one that has none."""
    if needs_file(config):
        return name_of(config, config.folder.value_model)
    return f"{config.value.kind} {config.value.options}"


def entitled(config: RunConfig) -> None:
    """Stop where something is missing, or another value model's report would be overwritten."""
    simulated = config.data.path is None
    need(config, demos=simulated, policy=simulated, value_model=True)
    file = config.folder.value_report / "report.json"
    name = model_name(config)
    refuse_to_overwrite(config, file, "value_model", name, "the files of this run")


@stage(
    "value_report",
    "report on the value model",
    about=lambda config: (
        f"{config.folder.value_model} on held-out episodes of "
        + (
            config.data.path
            or f"{config.folder.demonstrations}, rollouts of {config.folder.policy}"
        )
    ),
    writes=lambda config: config.folder.value_report / "report.md",
    entitled=entitled,
)
def report_value(config: RunConfig) -> dict[str, Any]:
    folder = prepare_output(config.folder.value_report)
    demonstrations = training_data(config)
    test = held_out(demonstrations, demonstrations.root)
    refuse_other_split(config, demonstrations)
    state = demonstrations.frames.get(keys.STATE, None)
    value_model = load_value_model(config, None if state is None else state.shape[-1])
    value_model.to(resolve_device(config.device))

    generator = torch.Generator().manual_seed(derive_seed(config.seed, "value_report", "shuffle"))
    instructions = task_instructions(demonstrations)
    if config.data.path is None:
        tasks = make_simulator(config.env).tasks
        titles = {name: tasks[name].instruction for name in config.env.tasks}
        played, used = show_rollouts(config, value_model, instructions)
    else:
        titles = {task.name: task.instruction for task in demonstrations.tasks}
        instructions = dict(islice(instructions.items(), MOST_TASKS))
        played, used = show_labelled(config, value_model, test)
    ordered = replace(test, episodes=tuple(e for e in test.episodes if e.success is not False))
    shown = score_demonstrations(value_model, ordered, instructions, generator=generator)
    in_order = [each for each in shown if each.source == "demonstration"]
    seen = [*zip(in_order, states_of(ordered), strict=True), *played]
    report = value_report([*shown, *(each for each, _ in played)], seed=config.seed)
    if "outcome" in report.overall:
        warn_if_blind(report.overall["outcome"]["final_auc"].value)

    if config.data.path is None:  # frames of other data are counted otherwise there: rftf annotate
        write_progress_table(value_model, demonstrations, progress_path(folder))
    pictures = [
        plot_value_over_progress(report, folder / "value_over_progress.png", "value over progress"),
        plot_calibration(report, folder / "calibration.png", "calibration on demonstrations"),
    ]
    if report.confusion["rows"]:
        title = "value of a success's last state"
        pictures.append(plot_confusion(report, folder / "confusion.png", title))
    films = []
    if config.image_size is not None:
        films = write_films(config, seen, titles, folder / "videos")

    used = {"value_model": model_name(config), **used}
    text = run_report(
        "Value model",
        {
            **value_report_tables(report),
            "Pictures": "\n\n".join(image(picture.name) for picture in pictures),
            "Films": film_images(films, folder),
            "What was used": "\n".join(f"- {name}: {what}" for name, what in used.items()),
        },
    )
    write_json(folder / "report.json", {**used, **report.to_dict()})
    write_text(folder / "report.md", text)
    logger.info("\n%s", text)
    return report.to_dict()


@recipe()
def main(config: RunConfig) -> None:
    report_value(config)


if __name__ == "__main__":
    main()
