"""Evaluate a policy on initial states that training never draws.

    python recipes/evaluate.py output=outputs/run policy.path=outputs/run/rftf/policy.safetensors
    python recipes/evaluate.py env=calvin_state output=outputs/run    # chains of five tasks

Writes ``<output>/evaluation``: ``results.json`` with every episode's outcome, the table with 95%
Wilson intervals, the value over time in successes and failures, and rollout videos.
"""

from __future__ import annotations

import logging
from pathlib import Path

from tensordict import TensorDictBase
from torch import nn

from rftf_torchrl import (
    ChainReport,
    PolicySpecProtocol,
    RunConfig,
    SuccessReport,
    TemporalValueModel,
    acting_policy,
    evaluate_chains,
    final_value_auc,
    held_out_episodes,
    instruction_sensitivity,
    keys,
    load_sentences,
    plot_value_over_time,
    prepare_output,
    progress_bar,
    recipe,
    record_videos,
    success_report,
    values_of_states,
    write_json_atomic,
)
from rftf_torchrl.recipes.simulators import (
    environment_factory,
    episode_collector,
    is_calvin,
    same_scene_pairs,
    task_names,
    task_of,
)
from rftf_torchrl.recipes.train_bc import policy_file
from rftf_torchrl.recipes.train_value import value_file

logger = logging.getLogger("evaluate")


def run_held_out(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol, label: str
) -> tuple[SuccessReport, TensorDictBase]:
    """Success on held-out states, and the trajectories."""
    episodes = held_out_episodes(config.env.tasks, config.evaluation.episodes_per_task)
    with (
        episode_collector(config, "test", policy, spec) as collector,
        progress_bar(len(episodes), f"evaluate {label}") as bar,
    ):
        trajectories = collector.collect(
            episodes,
            deterministic=config.evaluation.deterministic,
            seed=config.seed,
            on_episode=lambda _: bar.update(),
        )
    return success_report(trajectories, episodes), trajectories


def run_chains(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol, label: str, folder: Path
) -> ChainReport:
    """CALVIN's benchmark; chains that were finished before an interruption are not played again."""
    env = config.env
    with progress_bar(config.evaluation.chains, f"chains {label}") as bar:
        report = evaluate_chains(
            policy,
            transform=spec.observation_transform(),
            chains=config.evaluation.chains,
            steps_per_subtask=config.evaluation.steps_per_subtask,
            scene=env.scene,
            image_size=env.image_size,
            wrist_size=env.wrist_size,
            chunk_size=env.chunk_size,
            sentences=load_sentences(env.checkout, "validation") if env.checkout else None,
            deterministic=config.evaluation.deterministic,
            seed=config.seed,
            workers=config.collector.workers,
            timeout=config.collector.timeout,
            max_restarts=config.collector.max_restarts,
            resume_path=folder / f"chains_{label}.jsonl",
            on_chain=lambda _: bar.update(),
        )
    report.save(folder / f"chains_{label}.json")
    return report


def check_language(config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol) -> dict | None:
    """What the policy does under the partner's sentence; None without a same-scene pair."""
    tasks = config.env.tasks
    pairs = same_scene_pairs(config)
    if not pairs or not config.evaluation.swapped_per_task:
        return None
    episodes = held_out_episodes(tasks, config.evaluation.swapped_per_task)
    with (
        episode_collector(config, "test", policy, spec) as collector,
        progress_bar(2 * config.evaluation.swapped_per_task * 2 * len(pairs), "language") as bar,
    ):
        return instruction_sensitivity(
            collector, episodes, pairs, seed=config.seed, on_episode=lambda _: bar.update()
        )


def add_values(trajectories: TensorDictBase, value_model: TemporalValueModel) -> TensorDictBase:
    value, following = values_of_states(value_model, trajectories)
    trajectories[keys.TEMPORAL_VALUE] = value
    trajectories["next", keys.TEMPORAL_VALUE] = following
    return trajectories


def film(
    config: RunConfig,
    policy: nn.Module,
    spec: PolicySpecProtocol,
    value_model: TemporalValueModel | None,
    folder: Path,
    before: nn.Module | None = None,
) -> list[Path]:
    """Films of held-out episodes, one a task; none without pictures."""
    if config.env.image_size is None or not config.evaluation.video_episodes:
        return []
    return record_videos(
        environment_factory(config, "test", spec),
        policy,
        held_out_episodes(config.env.tasks[: config.evaluation.video_episodes], 1),
        folder,
        before=before,
        value_model=value_model,
        instruction_of=lambda name: task_of(config, name).instruction,
        labels=("cloned", "fine-tuned"),
        size=config.evaluation.video_size,
        fps=6,
    )


def evaluate(config: RunConfig) -> dict:
    folder = prepare_output(Path(config.output, "evaluation"))
    policy, spec = acting_policy(config, policy_file(config))
    if is_calvin(config):
        chains = run_chains(config, policy, spec, "policy", folder)
        logger.info("\n%s", chains.markdown())
        return chains.to_dict()
    report, trajectories = run_held_out(config, policy, spec, "policy")
    results = {"policy": str(policy_file(config)), "success": report.to_dict()}
    value_model = None
    if value_file(config).is_file():
        value_model = TemporalValueModel.load(value_file(config))
        add_values(trajectories, value_model)
        results["value_auc"] = final_value_auc(trajectories, task_names=task_names(config))
        plot_value_over_time(
            trajectories, folder / "value_over_time.png", task_names=task_names(config)
        )
    results["language"] = check_language(config, policy, spec)
    film(config, policy, spec, value_model, folder / "videos")
    write_json_atomic(folder / "results.json", results)
    logger.info("\n%s", report.markdown())
    return results


@recipe()
def main(config: RunConfig) -> None:
    evaluate(config)


if __name__ == "__main__":
    main()
