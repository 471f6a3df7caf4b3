"""Evaluate a policy on initial states that training never draws.

    python recipes/evaluate.py output=outputs/run policy.path=outputs/run/rftf/policy.safetensors
    python recipes/evaluate.py env=calvin_state output=outputs/run    # chains of five tasks

Writes ``<output>/evaluation``: ``results.json`` with every episode's outcome, the table with 95%
Wilson intervals, the value over time in successes and failures, and rollout videos.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn

from rftf_torchrl import (
    PolicySpecProtocol,
    Report,
    RunConfig,
    SuccessReport,
    acting_policy,
    final_value_auc,
    held_out_episodes,
    instruction_sensitivity,
    keys,
    make_simulator,
    plot_value_over_time,
    prepare_output,
    recipe,
    record_videos,
    simulator_class,
    success_report,
    task_names,
    values_of_states,
    write_json,
)
from rftf_torchrl.configs.artefacts import (
    load_value_model,
    need,
    needs_file,
    refuse_to_overwrite,
)
from rftf_torchrl.configs.episodes import counted, episode_collector, episode_factory
from rftf_torchrl.configs.learner import observation_sizes
from rftf_torchrl.configs.record import name_of
from rftf_torchrl.configs.run import stage

logger = logging.getLogger("evaluate")


def run_held_out(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol, label: str
) -> tuple[SuccessReport, TensorDictBase]:
    """Success on held-out states, and the trajectories."""
    episodes = held_out_episodes(config.env.tasks, config.evaluation.episodes_per_task)
    with (
        episode_collector(config, "test", policy, spec) as collector,
        counted(len(episodes), f"evaluation of {label}") as on_episode,
    ):
        trajectories = collector.collect(
            episodes,
            deterministic=config.evaluation.deterministic,
            seed=config.seed,
            on_episode=on_episode,
        )
    return success_report(trajectories, episodes), trajectories


def judge(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol, label: str, folder: Path
) -> tuple[Report, TensorDictBase | None]:
    """The simulator's own evaluation, or else success on held-out states and the trajectories."""
    simulator: Any = make_simulator(config.env)
    if not hasattr(simulator, "evaluate"):
        return run_held_out(config, policy, spec, label)
    report = simulator.evaluate(
        policy,
        spec.observation_transform(),
        collector=config.collector,
        deterministic=config.evaluation.deterministic,
        seed=config.seed,
        folder=folder,
        label=label,
    )
    return report, None


def check_language(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol
) -> dict[str, Any] | None:
    """What the policy does under the partner's instruction; None without a same-scene pair."""
    simulator, tasks = make_simulator(config.env), config.env.tasks
    pairs = [pair for pair in simulator.same_scene if set(pair) <= set(tasks)]
    swapped = config.evaluation.swapped_per_task
    if not pairs or not swapped:
        return None
    episodes = held_out_episodes(tasks, swapped)
    with (
        episode_collector(config, "test", policy, spec) as collector,
        counted(4 * len(pairs) * swapped, "own and swapped instructions") as on_episode,
    ):
        return instruction_sensitivity(
            collector,
            episodes,
            pairs,
            seed=config.seed,
            instruction_of=lambda name: simulator.tasks[name].instruction,
            on_episode=on_episode,
        )


def add_values(trajectories: TensorDictBase, value_model: TensorDictModuleBase) -> TensorDictBase:
    value, following = values_of_states(value_model, trajectories, out_key=value_model.out_keys[0])
    trajectories[keys.TEMPORAL_VALUE] = value
    trajectories["next", keys.TEMPORAL_VALUE] = following
    return trajectories


def film(
    config: RunConfig,
    policy: nn.Module,
    spec: PolicySpecProtocol,
    value_model: TensorDictModuleBase | None,
    folder: Path,
    before: nn.Module | None = None,
) -> list[Path]:
    """Videos of held-out episodes, one per task; none without images."""
    if config.env.image_size is None or not config.evaluation.video_episodes:
        return []
    tasks = make_simulator(config.env).tasks
    return record_videos(
        episode_factory(config, "test", spec),
        policy,
        held_out_episodes(config.env.tasks[: config.evaluation.video_episodes], 1),
        folder,
        before=before,
        value_model=value_model,
        instruction_of=lambda name: tasks[name].instruction,
        labels=("cloned", "fine-tuned"),
        size=config.evaluation.video_size,
        deterministic=config.evaluation.deterministic,
    )


def judged(config: RunConfig) -> str:
    """What an evaluation plays, in words."""
    if hasattr(simulator_class(config.env.kind), "evaluate"):
        return f"the benchmark of {config.env.kind}"
    tasks, episodes = len(config.env.tasks), config.evaluation.episodes_per_task
    return f"{episodes} held-out episodes of each of {tasks} tasks in {config.env.kind}"


def entitled(config: RunConfig) -> None:
    """Stop where the policy is missing, or another one's results would be overwritten.

    Raises:
        FileExistsError: where the folder has those of another policy.
    """
    need(config, policy=True, value_model=bool(config.value.path))
    file = config.folder.evaluation / "results.json"
    name = name_of(config, config.folder.policy)
    refuse_to_overwrite(config, file, "policy", name, "policy.path and value.path")


@stage(
    "evaluate",
    "evaluation",
    about=lambda config: f"{config.folder.policy}, {judged(config)}",
    writes=lambda config: config.folder.evaluation,
    entitled=entitled,
)
def evaluate(config: RunConfig) -> dict[str, Any]:
    folder = prepare_output(config.folder.evaluation)
    policy, spec = acting_policy(config, config.folder.policy)
    report, trajectories = judge(config, policy, spec, "policy", folder)
    logger.info("\n%s", report.markdown())
    if trajectories is None:
        return report.to_dict()
    results: dict[str, Any] = {
        "policy": name_of(config, config.folder.policy),
        "seed": config.seed,
        "deterministic": config.evaluation.deterministic,
        "success": report.to_dict(),
    }
    write_json(folder / "results.json", results)  # not lost where what follows fails
    names = task_names(make_simulator(config.env), config.env.tasks)
    value_model = None
    if not needs_file(config) or config.folder.value_model.is_file():
        value_model = load_value_model(config, observation_sizes(config, spec).state_dim)
        add_values(trajectories, value_model)
        model = config.folder.value_model
        results["value_model"] = name_of(config, model) if needs_file(config) else None
        results["value_auc"] = final_value_auc(trajectories, task_names=names)
        plot_value_over_time(trajectories, folder / "value_over_time.png", task_names=names)
    results["language"] = check_language(config, policy, spec)
    film(config, policy, spec, value_model, folder / "videos")
    write_json(folder / "results.json", results)
    return results


@recipe()
def main(config: RunConfig) -> None:
    evaluate(config)


if __name__ == "__main__":
    main()
