"""Train the value model on the order of the demonstrations' frames: no action is read.

    python recipes/train_value.py output=outputs/run
    python recipes/train_value.py output=outputs/run value=ranking_failures   # failed rollouts too
    python recipes/train_value.py output=outputs/run value.kind=pretrained \\
        +value.options.image_tower=facebook/dinov2-base
    python recipes/train_value.py output=outputs/run value.kind=my_module:MyValue
    python recipes/train_value.py output=outputs/run data=my_videos   # no simulator

Reads ``<output>/demos`` (and, for failures, the cloned policy), or with ``data=...`` videos with an
instruction each, a LeRobot data set or another source, decoded once into ``<output>/data``. Writes
``<output>/value/value.safetensors``, the curve of the loss, and how well the model orders held-out
demonstrations.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import (
    Demonstrations,
    Episode,
    ObservationSizes,
    RunConfig,
    TemporalValueModel,
    acting_policy,
    build_value_model,
    check_value_model,
    derive_seed,
    keys,
    label_outcomes,
    make_logger,
    make_simulator,
    pairwise_accuracy,
    prepare_output,
    progress_bar,
    read_made_by,
    recipe,
    resolve_device,
    sample_clips,
    seed_everything,
    value_order_correlation,
)
from rftf_torchrl.configs.artefacts import need, need_pretrained, needs_file, training_data
from rftf_torchrl.configs.episodes import counted, episode_collector
from rftf_torchrl.configs.record import value_made_by
from rftf_torchrl.configs.run import stage
from rftf_torchrl.data.format import Episode as DemonstrationEpisode
from rftf_torchrl.digests import write_record
from rftf_torchrl.evaluation.report import percent
from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.recipes.value_steps import ValueSteps, calibrate

logger = logging.getLogger("train_value")

ROLLOUT_STEPS = "simulator steps of rollouts"


def rollout_episodes(config: RunConfig) -> list[Episode]:
    """Where the rollouts that the value model learns from start; none if it needs none."""
    if not (config.value.failures or config.value.successes) or config.data.path is not None:
        return []
    seed = derive_seed(config.seed, "rollouts")
    return [
        Episode(task, derive_seed(seed, task, number) % 2**31)
        for task in config.tuned_tasks
        for number in range(config.value.rollout_episodes)
    ]


def cloned_rollouts(config: RunConfig) -> tuple[list[TensorDictBase], int]:
    """Episodes [T] of the cloned policy on training states, and the simulator steps they cost."""
    episodes = rollout_episodes(config)
    if not episodes:
        return [], 0
    policy, spec = acting_policy(config, config.folder.policy)
    simulator, seed = make_simulator(config.env), derive_seed(config.seed, "rollouts")
    with (
        episode_collector(config, "train", policy, spec) as collector,
        counted(len(episodes), "rollouts") as on_episode,
    ):
        data = label_outcomes(collector.collect(episodes, seed=seed, on_episode=on_episode))
    ids = data[keys.TRAJECTORY]
    steps = int(data["next", "executed"].sum()) * simulator.steps_per_action
    return [data[ids == number] for number in ids.unique().tolist()], steps


def held_out_report(
    model: TensorDictModuleBase, demonstrations: Demonstrations, frames: int, device: torch.device
) -> dict[str, float]:
    """How well the model orders demonstrations that it has not learned from."""
    generator = torch.Generator().manual_seed(0)
    clips = sample_clips(demonstrations, batch_size=64, frames=frames, generator=generator)
    with torch.inference_mode(), eval_mode(model):
        values = model(clips.to(device))[model.out_keys[0]].squeeze(-1).cpu()
    mask = clips["frame_mask"]
    return {
        "pairwise_accuracy": float(pairwise_accuracy(values, mask)),
        "value_order_correlation": float(value_order_correlation(values, mask)),
    }


def write_value_report(
    config: RunConfig,
    model: TensorDictModuleBase,
    demonstrations: Demonstrations,
    simulator_steps: int,
) -> None:
    report: dict[str, float] = {"simulator_steps": simulator_steps}
    held_out = tuple(
        episode
        for episode in demonstrations.episodes
        if episode.split == "test" and episode.success is not False
    )
    if held_out:
        shown, device = replace(demonstrations, episodes=held_out), resolve_device(config.device)
        report |= held_out_report(model, shown, config.value.frames, device)
    prepare_output(config.folder.value)
    write_record(config.folder.value_training, report)
    if held_out:
        logger.info(
            "value model: on held-out demonstrations, %s of the pairs of frames are in order",
            percent(report["pairwise_accuracy"]),
        )


def by_outcome(
    config: RunConfig, train: Demonstrations
) -> tuple[Demonstrations, tuple[DemonstrationEpisode, ...]]:
    """What is ordered in time, and the failures that the failure term reads.

    Raises:
        ValueError: where there is nothing to order, or no failure and ``value.failures`` asks for
            them.
    """
    failed = tuple(episode for episode in train.episodes if episode.success is False)
    ordered = tuple(episode for episode in train.episodes if episode.success is not False)
    if not ordered:
        raise ValueError(f"{train.root} has no episode to train on that is not a failure")
    if config.data.path is not None and bool(failed) != bool(config.value.failures):
        if not failed:
            raise ValueError(
                f"value.failures={config.value.failures}, but no episode of {config.data.path} to "
                "train on is labelled as a failure: label some, or set value.failures=0"
            )
        logger.info(
            "%d failures are not trained on: value=ranking_failures ranks them", len(failed)
        )
    return replace(train, episodes=ordered), failed if config.value.failures else ()


def described(config: RunConfig) -> str:
    """What the value model learns from, in words."""
    settings = config.value
    rollouts = len(rollout_episodes(config))
    return (
        f"{settings.steps:,} steps of {settings.clips} clips with {settings.frames} frames of "
        f"{config.data.path or config.folder.demonstrations}"
        + (f" and of {rollouts} rollouts of the cloned policy" if rollouts else "")
        + f", kind {settings.kind}, on {resolve_device(config.device)}"
    )


def entitled(config: RunConfig) -> None:
    """Stop where something is missing, before any data are decoded."""
    need(config, demos=config.data.path is None, policy=bool(rollout_episodes(config)))
    need_pretrained(config, policy=False)


@stage(
    "train_value",
    "value model",
    about=described,
    writes=lambda config: (
        config.folder.value / "value.safetensors"
        if needs_file(config)
        else config.folder.value_training
    ),
    entitled=entitled,
)
def train_value(config: RunConfig) -> tuple[Path, int]:
    """Train and save the model; returns its file and the simulator steps of negatives.

    One that is used as it is gets no file, only its report on held-out demonstrations.
    """
    seed_everything(derive_seed(config.seed, "value"))
    demonstrations = training_data(config)
    train, failed = by_outcome(config, demonstrations.select(split="train"))
    model = untrained(config, train)
    if not isinstance(model, TemporalValueModel):
        write_value_report(config, model, demonstrations, 0)
        return config.folder.value_model, 0
    folder = prepare_output(config.folder.value)
    file, kept = folder / "value.safetensors", folder / "uncalibrated.safetensors"
    made_by = value_made_by(config, demonstrations)
    extra_steps = steps_of_kept(kept, made_by) if config.resume else None
    if extra_steps is None:
        rollouts, extra_steps = cloned_rollouts(config)
        fit(config, model, train, failed, rollouts)
    else:
        model = TemporalValueModel.load(kept, kind=config.value.kind)
        model.to(resolve_device(config.device))
    try:
        calibrate(config, model, train)
    except ValueError as error:
        model.save(kept, made_by={**made_by, ROLLOUT_STEPS: extra_steps})
        raise ValueError(f"{error} {way_on(config, kept)}") from error
    write_value_report(config, model, demonstrations, extra_steps)
    model.save(file, made_by=made_by)
    kept.unlink(missing_ok=True)
    return file, extra_steps


def steps_of_kept(kept: Path, made_by: dict[str, Any]) -> int | None:
    """Rollout steps of a model that is trained and lacks but a calibration, if there is one."""
    if not kept.is_file():
        return None
    earlier = read_made_by(kept)
    alike = all(earlier.get(n) == v for n, v in made_by.items() if n != "value.calibration")
    return int(earlier[ROLLOUT_STEPS]) if alike else None


def way_on(config: RunConfig, kept: Path) -> str:
    """What to type after a calibration that failed."""
    again = f"rftf train-value output={config.output} with the same settings and"
    text = f"The trained model is kept in {kept}. To train another for longer: {again} "
    text += f"value.steps={2 * config.value.steps}"
    if config.value.calibration == "global":
        return text
    return (
        f"{text}. To calibrate this one for all instructions together: {again} resume=true "
        "value.calibration=global"
    )


def untrained(config: RunConfig, train: Demonstrations) -> TensorDictModuleBase:
    """A model of the configured kind, tried on two frames, that knows the states' statistics.

    They are of all recorded frames, held-out ones too: the states of one demonstration vary too
    little to scale those of others by.
    """
    device, settings = resolve_device(config.device), config.value
    state = train.frames.get(keys.STATE, None)
    sizes = ObservationSizes(config.image_size, None if state is None else state.shape[-1])
    model = build_value_model(settings.kind, settings.options, sizes).to(device)
    check_value_model(settings.kind, model, train.frames[:2].to(device))
    if config.image_size is None and isinstance(model, TemporalValueModel):
        for module in model.modules():
            if hasattr(module, "set_state_statistics"):
                module.set_state_statistics(state.mean(0), state.std(0))
    return model


def fit(
    config: RunConfig,
    model: TemporalValueModel,
    train: Demonstrations,
    failed: tuple[DemonstrationEpisode, ...],
    rollouts: list[TensorDictBase],
) -> None:
    """Train the model, and log into the output folder.

    Args:
        config: of the run.
        model: an untrained one.
        train: what is ordered in time.
        failed: episodes of its frames that failed, of data from outside.
        rollouts: of the cloned policy, as :func:`cloned_rollouts` gives them.
    """
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "value", "batches"))
    settings = config.value
    ranking = ValueSteps(config, model, train, failed, failures=settings.failures)
    outcomes = ranking.by_outcome(
        rollouts, successes=settings.successes, failures=settings.failures > 0
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(ranking.optimizer, settings.steps)
    folder = prepare_output(config.folder.value)
    steps = progress_bar(range(1, settings.steps + 1), "value model")
    with make_logger(config.logger.kind, folder, {"seed": config.seed}) as log:
        for step in steps:
            losses = ranking.step(outcomes, generator)
            schedule.step()
            if step % 20 == 0 or step == settings.steps:
                log.log({key: float(value) for key, value in losses.items()}, step)
                steps.set_postfix(accuracy=f"{float(losses['pairwise_accuracy']):.3f}")


@recipe()
def main(config: RunConfig) -> None:
    train_value(config)


if __name__ == "__main__":
    main()
