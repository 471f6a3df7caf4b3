"""A value model that goes on learning from the episodes that fine-tuning plays."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import (
    RunConfig,
    TemporalValueModel,
    derive_seed,
    final_value_auc,
    keys,
    label_outcomes,
    split_trajectories,
    values_of_states,
)
from rftf_torchrl.configs.artefacts import load_value_model, whole_demos
from rftf_torchrl.configs.record import value_made_by
from rftf_torchrl.recipes.value_steps import Outcomes, ValueSteps, calibrate

logger = logging.getLogger("finetune")


class ValueRefresh:
    """Trains a copy of a value model, and gives what it learned to the one that pays.

    Each step sees demonstrations and episodes of the present iteration. The successes of the policy
    are ordered in time as demonstrations are, and its failures are ranked below success. So the
    value model learns what the policy does wrong now. No episode is played for it. With
    ``reward.fade`` there are fewer steps, by the share of the episodes that failed. Where the ends
    of demonstrations would not be worth more than their starts any longer, what was learned in this
    iteration is dropped, with a warning, and the former model goes on paying.

    Args:
        config: of the run, with ``value.refresh_steps`` above 0.
        paying: the model that pays, on any device; its weights and calibration are overwritten.
    """

    def __init__(self, config: RunConfig, paying: TensorDictModuleBase) -> None:
        device = next(paying.parameters()).device
        self.config, self.paying = config, paying
        self.model = cast(TemporalValueModel, load_value_model(config)).to(device)
        calibration = self.model.made_by.get("value.calibration", config.value.calibration)
        self.calibrated = replace(config, value=replace(config.value, calibration=calibration))
        self.train = whole_demos(config).select(split="train")
        self.steps = ValueSteps(
            config, self.model, self.train, failures=config.value.failures or 1.0
        )

    def learn(self, data: TensorDictBase, iteration: int) -> float:
        """Learn from an iteration's episodes on the CPU, before they are paid.

        Returns:
            The ROC-AUC of the former model's final values of these episodes, see
            :func:`final_value_auc`: it has not seen them.
        """
        ends = data[data["next", "done"].squeeze(-1)]
        ends[keys.TEMPORAL_VALUE], ends["next", keys.TEMPORAL_VALUE] = values_of_states(
            self.paying, ends, out_key=self.paying.out_keys[0]
        )
        auc: float = final_value_auc(ends)["final_auc"]
        episodes = list(split_trajectories(label_outcomes(data)).values())
        outcomes = self.steps.by_outcome(episodes, successes=True, failures=True)
        seed = derive_seed(self.config.seed, "refresh", iteration)
        generator = torch.Generator().manual_seed(seed)
        self.model.train()
        steps = self.config.value.refresh_steps
        if self.config.reward.fade:
            steps = round(steps * len(outcomes[False]) / len(episodes))
        optimizer = deepcopy(self.steps.optimizer.state_dict())
        for _ in range(steps):
            self.steps.step(outcomes, generator)
        self.model.eval()
        try:
            self.calibrate(outcomes)
        except ValueError as error:
            logger.warning(
                "iteration %d: what the value model learned is dropped, the former one pays: %s",
                iteration,
                error,
            )
            self.model.load_state_dict(self.paying.state_dict())
            self.steps.optimizer.load_state_dict(optimizer)
        self.publish()
        return auc

    def calibrate(self, outcomes: Outcomes) -> None:
        """Let demonstrations run from 0 to 1, or failures be 0 where there is no order of time."""
        if self.config.value.shuffle_time and outcomes[False]:
            # Without an order of time, what is left is whether a state is of a success.
            failures = torch.cat([episode["next"] for episode in outcomes[False]])
            self.model.calibrate(failures, self.train.frames[self.train.places])
        else:
            calibrate(self.calibrated, self.model, self.train)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"value_model": self.model, "value_optimizer": self.steps.optimizer}

    def publish(self) -> None:
        """Give weights and calibration to the model that pays, as after a resume."""
        self.paying.load_state_dict(self.model.state_dict())

    def save(self) -> None:
        """Write it beside the fine-tuned policy."""
        self.model.save(self.config.tuned.value_model, made_by=value_made_by(self.calibrated))
