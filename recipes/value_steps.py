"""Steps of the ranking loss, for :mod:`train_value` and for a value model that goes on learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from tensordict import NonTensorStack, TensorDictBase
from torch import nn

from rftf_torchrl import (
    Demonstrations,
    PretrainedEncoderConfig,
    RunConfig,
    TemporalRankingLoss,
    TemporalValueModel,
    autocast,
    cache_image_features,
    clip_and_check_gradients,
    keep_image_features,
    keys,
    make_simulator,
    on_cached_features,
    random_shift,
    resolve_device,
    sample_clips,
    stop_on_non_finite_loss,
)
from rftf_torchrl.data.format import Episode as DemonstrationEpisode
from rftf_torchrl.values.calibration import CalibrationMode

Outcomes = Mapping[bool, Sequence[TensorDictBase]]


class ValueSteps:
    """Optimizer steps on demonstrations and, where there are any, on the policy's own episodes.

    Args:
        config: of the run.
        model: what learns.
        train: what is ordered in time.
        failed: episodes of its frames that failed, of data from outside.
        failures: weight of the failure term.
    """

    def __init__(
        self,
        config: RunConfig,
        model: TemporalValueModel,
        train: Demonstrations,
        failed: tuple[DemonstrationEpisode, ...] = (),
        *,
        failures: float,
    ) -> None:
        self.config, self.model, self.failed = config, model, failed
        self.ranked, self.train = on_features(config, model, train)
        self.loss = TemporalRankingLoss(
            self.ranked,
            wrong_instruction=config.value.wrong_instruction,
            failures=failures,
            pair_distance=config.value.pair_distance,
        )
        trained = [p for p in self.loss.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=config.value.learning_rate)
        self._simulator: Any = make_simulator(config.env)

    def by_outcome(
        self, rollouts: Sequence[TensorDictBase], *, successes: bool, failures: bool
    ) -> Outcomes:
        """The rollouts to learn from, with their features where an image encoder is frozen."""
        if self.ranked is not self.model:
            rollouts = [cache_image_features(self.model, rollout) for rollout in rollouts]
        wanted = {True: successes, False: failures}
        return {
            outcome: [
                rollout
                for rollout in rollouts
                if wanted[outcome] and bool(rollout[keys.TRAJECTORY_SUCCESS].any()) is outcome
            ]
            for outcome in (True, False)
        }

    def step(self, outcomes: Outcomes, generator: torch.Generator) -> TensorDictBase:
        """One step; returns the losses."""
        config, settings = self.config, self.config.value
        clips = self._clips(outcomes, generator)
        if keys.IMAGE in self.ranked.in_keys and settings.random_shift:
            clips[keys.IMAGE] = random_shift(clips[keys.IMAGE], settings.random_shift, generator)
        if config.augment > 0 and config.data.path is None:
            clips = self._simulator.augment(clips, config.augment, generator)
        device = resolve_device(config.device)
        with autocast(device, config.precision):
            losses: TensorDictBase = self.loss(clips.to(device))
        stop_on_non_finite_loss(losses)
        self.optimizer.zero_grad()
        sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
        clip_and_check_gradients(self.loss.named_parameters(), config.ppo.max_grad_norm)
        self.optimizer.step()
        return losses.detach()

    def _clips(self, outcomes: Outcomes, generator: torch.Generator) -> TensorDictBase:
        settings, train = self.config.value, self.train
        half = max(1, settings.clips // 2)
        cached = self.ranked is not self.model
        clip_keys = [*self.ranked.in_keys, keys.TASK_ID] if cached else None
        clips = sample_clips(
            train,
            batch_size=settings.clips,
            frames=settings.frames,
            generator=generator,
            keys=clip_keys,
            shuffle_time=settings.shuffle_time,
        )
        clips[keys.TRAJECTORY_SUCCESS] = torch.ones(*clips.batch_size, 1, dtype=torch.bool)
        own = [
            clip
            for found in outcomes.values()
            if found
            for clip in rollout_clips(found, half, settings.frames, generator)
        ]
        parts = [clips, *([torch.stack(own)] if own else [])]
        if self.failed:
            shown = sample_clips(
                replace(train, episodes=self.failed),
                batch_size=half,
                frames=settings.frames,
                generator=generator,
                keys=clip_keys,
            )
            shown[keys.TRAJECTORY_SUCCESS] = torch.zeros(*shown.batch_size, 1, dtype=torch.bool)
            parts.append(shown)
        if len(parts) > 1:
            loss_keys = (keys.TASK_ID, keys.TRAJECTORY_SUCCESS, "frame_mask", "frame_progress")
            shared = [*self.ranked.in_keys, *loss_keys]
            clips = torch.cat([part.select(*shared) for part in parts])
        return clips


def rollout_clips(
    rollouts: Sequence[TensorDictBase], count: int, frames: int, generator: torch.Generator
) -> list[TensorDictBase]:
    """Clips [frames] of rollouts drawn at random; a short one repeats its last frame, masked."""
    clips = []
    for row in torch.randint(len(rollouts), (count,), generator=generator).tolist():
        states = rollouts[row]["next"]
        when = torch.randperm(len(states), generator=generator)[:frames].sort().values
        mask = torch.arange(frames) < len(when)
        when = nn.functional.pad(when, (0, frames - len(when)), value=len(states) - 1)
        clip = states[when]
        clip = clip.select("observation", "instruction", "features", keys.TASK_ID, strict=False)
        clip["frame_mask"] = mask
        clip["frame_progress"] = ((when + 1) / len(states))[:, None]
        clip[keys.TRAJECTORY_SUCCESS] = rollouts[row][keys.TRAJECTORY_SUCCESS][:1].expand(frames, 1)
        clips.append(clip)
    return clips


def on_features(
    config: RunConfig, model: TemporalValueModel, train: Demonstrations
) -> tuple[TemporalValueModel, Demonstrations]:
    """The model behind a tower that is frozen and what that says of the frames, if there is one."""
    tower = model.config if isinstance(model.config, PretrainedEncoderConfig) else None
    if tower is None or tower.image_training != "frozen":
        return model, train
    if config.data.path is None:
        frames = cache_image_features(model, train.frames.copy())
    else:
        frames = keep_image_features(model, train.frames, train.root / "features")
    return on_cached_features(model), replace(train, frames=frames)


def calibrate(config: RunConfig, model: TemporalValueModel, train: Demonstrations) -> None:
    """Let demonstrations run from 0 to 1."""
    settings = config.value
    first, last = train.spans[:, 0], train.spans[:, 1] - 1
    calibration = "standardise" if settings.shuffle_time else settings.calibration
    # Of data from outside, an episode's image may be large, and there may be many.
    calibrated, ends = model, train.frames
    if config.data.path is not None:
        calibrated, train = on_features(config, model, train)
        ends = train.frames.select(*calibrated.in_keys, model.tokens_key)
    sentences = {task.id: task.instruction for task in train.tasks}
    texts = NonTensorStack(*(sentences[episode.task_id] for episode in train.episodes))
    starts = ends[first].set(keys.INSTRUCTION_TEXT, texts)  # for an error
    calibrated.calibrate(starts, ends[last], mode=cast(CalibrationMode, calibration))
