"""What fine-tuning trains and what it learns from, built from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import nn

from rftf_torchrl import keys
from rftf_torchrl.configs.artefacts import load_value_model, need, needs_file
from rftf_torchrl.configs.policies import add_adapters, fit_in_memory
from rftf_torchrl.configs.record import (
    may_change,
    named,
    refuse_changes,
    refuse_other_environment,
    tuned_by,
)
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.digests import read_record
from rftf_torchrl.nets.feature_cache import cache_bytes, cache_features
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.objectives.advantages import CRITICS, Advantages, make_critic
from rftf_torchrl.objectives.ppo import RFTFPPOLoss
from rftf_torchrl.policies.file import load_policy
from rftf_torchrl.policies.spec import PolicySpecProtocol
from rftf_torchrl.rewards.forms import gamma_option, keeps_failures, reward_form
from rftf_torchrl.rewards.value_reward import ValueReward
from rftf_torchrl.training.acted_weights import ActedWeights
from rftf_torchrl.training.checkpoint import PREFIX, SUFFIX
from rftf_torchrl.training.footprint import Footprint, footprint
from rftf_torchrl.training.processes import started_processes
from rftf_torchrl.training.sharding import ShardedCopy
from rftf_torchrl.values.critics import no_critic
from rftf_torchrl.values.temporal_value import TemporalValueModel

logger = logging.getLogger("finetune")


def refuse_used_folder(config: RunConfig) -> None:
    """An earlier run's checkpoints are continued or left alone, never mixed with a new run's.

    Raises:
        FileExistsError: when there are some and the run is not told to resume.
        ConfigError: when they, the policy or the value model were made with other settings, or they
            are beyond what the run is to play.
    """
    refuse_other_environment(config, config.folder.policy, "policy.path")
    refuse_other_environment(config, config.folder.value_model, "value.path")
    folder = config.tuned.checkpoints
    begun = any(folder.glob("*"))
    over = config.tuned.end.is_file()
    if config.resume and (begun or over) and config.tuned.settings.is_file():
        earlier = named(config, read_record(config.tuned.settings))
        refuse_changes(str(config.tuned.root), earlier, tuned_by(config), may_change(config))
        _refuse_fewer_iterations(config)
    if begun and not config.resume:
        raise FileExistsError(
            f"{folder} holds the checkpoints of an earlier run: continue it with resume=true, or "
            "start afresh with another output=..."
        )


def _refuse_fewer_iterations(config: RunConfig) -> None:
    """Stop where the newest checkpoint is after more iterations than the run is to have."""
    files = sorted(config.tuned.checkpoints.glob(f"{PREFIX}-*{SUFFIX}"))
    done = int(files[-1].stem.rpartition("-")[2]) if files else 0
    asked = config.ppo.iterations
    learns = CRITICS.find(config.critic) is not no_critic
    more = done - asked - config.ppo.critic_warmup * learns
    if more > 0:
        raise ConfigError(
            f"{files[-1]} is after iteration {done}, with those of the critic alone, and the run "
            f"is to have ppo.iterations={asked}: give ppo.iterations={asked + more} or more, or "
            "another output folder"
        )


def refuse_to_tune(config: RunConfig) -> None:
    """Stop where the policy or a value model that is used is missing, or the folder is used.

    Raises:
        FileNotFoundError: naming the command that makes what is missing.
        FileExistsError, ConfigError: see :func:`refuse_used_folder`, :func:`refuse_refresh` and
            :func:`refuse_other_images`.
        ConfigError: where a policy is to be divided over one process.
    """
    if config.ppo.shard and started_processes() == 1:
        raise ConfigError(
            "ppo.shard=true divides the policy over the processes that torchrun starts, and this "
            "one is alone: start it with torchrun --nproc-per-node=2 -m "
            "rftf_torchrl.recipes.finetune ..., or leave out ppo.shard"
        )
    refuse_refresh(config)
    refuse_other_images(config)
    need(config, policy=True, value_model=uses_value_model(config))
    need(config, demos=config.value.refresh_steps > 0)
    refuse_used_folder(config)


def refuse_refresh(config: RunConfig) -> None:
    """Stop where a value model that can't go on learning is asked to.

    Raises:
        ConfigError: where it is used as it is, or the run's data are not the simulator's.
    """
    steps, kind = config.value.refresh_steps, config.value.kind
    problem = ""
    if not needs_file(config):
        problem = f"a value model of value.kind={kind} is used as it is and does not go on learning"
    elif config.data.path is not None:
        problem = "it goes on learning from demonstrations in the simulator, so leave out data"
    if steps and problem:
        raise ConfigError(
            f"value.refresh_steps={steps}: {problem}; or choose reward=rftf, or another that does "
            "not refresh it"
        )


def refuse_other_images(config: RunConfig) -> None:
    """Stop where a value model of ``data`` can't read what the simulator shows.

    Raises:
        ConfigError: where the simulator has no images, or others than the value model learns from.
    """
    shown, learned = config.env.image_size, config.data.image_size
    if config.data.path is None or not (uses_value_model(config) and needs_file(config)):
        return
    if shown is None or (shown != learned and config.value.kind != "pretrained"):
        raise ConfigError(
            f"data.image_size={learned}: the value model learns from such images, and the "
            f"simulator has env.image_size={'null' if shown is None else shown}: make them equal"
        )


def uses_value_model(config: RunConfig) -> bool:
    """Whether fine-tuning is paid by a value model."""
    return bool(config.reward.dense_weight) and config.reward.potential == "value"


def observation_sizes(config: RunConfig, spec: PolicySpecProtocol) -> ObservationSizes:
    """What the run's policies see, as a critic or a value model may."""
    described = getattr(spec, "encoder", spec)
    return ObservationSizes(config.env.image_size, getattr(described, "state_dim", None))


def potential(
    config: RunConfig, sizes: ObservationSizes, device: torch.device
) -> TensorDictModuleBase | None:
    """What the dense reward is the difference of."""
    if not config.reward.dense_weight:
        return None
    if config.reward.potential == "environment":
        return TensorDictModule(nn.Identity(), [keys.ENV_POTENTIAL], [keys.TEMPORAL_VALUE])
    model = load_value_model(config, sizes.state_dim)
    columns = reward_form(config.reward.form, config.reward.options)[1]
    if keeps_failures(columns) and isinstance(model, TemporalValueModel):
        refuse_uncalibrated(model, config)
    return model.to(device)


def refuse_uncalibrated(model: TemporalValueModel, config: RunConfig) -> None:
    """Values must say where start and goal are, for a form that pays what a failure reached.

    Raises:
        ConfigError: when the model was never calibrated.
    """
    if not model.calibration.fitted:
        raise ConfigError(
            f"{config.folder.value_model} is not calibrated, and reward.form={config.reward.form} "
            "reads 0 as the start and 1 as the goal: call model.calibrate(...) before it is saved, "
            "as train-value does"
        )


@dataclass(frozen=True)
class Learner:
    """What learns, and what it learns from.

    Attributes:
        acted: inside its context the policy is the one that played the present episodes.
    """

    policy: nn.Module
    acted: Callable[[], AbstractContextManager[None]]
    spec: PolicySpecProtocol
    reward: ValueReward
    advantages: Advantages
    loss: RFTFPPOLoss
    optimizer: torch.optim.Optimizer

    @property
    def critic(self) -> TensorDictModuleBase | None:
        return self.advantages.network

    def footprint(self, seconds: Mapping[str, float], device: torch.device) -> Footprint:
        """The memory that the parts hold, and where the time went."""
        parts = {
            "policy": self.policy,
            "critic": self.critic,
            "value model": self.reward.value_model,
        }
        held = {part: module for part, module in parts.items() if module is not None}
        return footprint(held, optimizer=self.optimizer, seconds=seconds, device=device)


def make_learner(config: RunConfig, device: torch.device) -> Learner:
    """The cloned policy with all that its fine-tuning needs."""
    settings = config.ppo
    policy, spec = load_policy(config.folder.policy, kind=config.policy.kind)
    sizes = observation_sizes(config, spec)
    time_key = None if settings.bootstrap_timeouts else keys.TIME_LEFT
    critic = make_critic(config.critic, policy, spec, sizes, time_key=time_key)
    add_adapters(config, policy)
    policy.to(device)
    reference = "adapters_off" if config.policy.lora_rank is not None else deepcopy(policy)
    fit_in_memory(config, policy)
    if critic is not None:
        critic.to(device)
    bounds = config.reward.value_range
    reward = ValueReward(
        potential(config, sizes, device),
        form=config.reward.form,
        dense_weight=config.reward.dense_weight,
        outcome_weight=config.reward.outcome_weight,
        share_key=keys.FAILURE_RATE if config.reward.fade else None,
        value_range=None if bounds is None else (bounds[0], bounds[1]),
        **gamma_option(config.reward.form, settings.gamma),
        **config.reward.options,
    )
    advantages = Advantages.make(
        config.critic,
        critic,
        gamma=settings.gamma,
        lmbda=settings.lmbda,
        group_size=settings.group_size,
    )
    loss_module, optimizer = _objective(config, device, policy, critic, reference)
    acted = ActedWeights(policy) if settings.overlap else nullcontext
    return Learner(policy, acted, spec, reward, advantages, loss_module, optimizer)


def shard(config: RunConfig, learner: Learner, device: torch.device) -> ShardedCopy:
    """What learns in the learner's place, with a part of the policy in each process.

    Raises:
        UserError: where the policy cannot be divided.
    """
    return ShardedCopy(
        (learner.policy, learner.critic),
        learner.loss,
        learner.optimizer,
        partial(_objective, config, device, functional=False),
        device,
    )


def _objective(
    config: RunConfig,
    device: torch.device,
    policy: nn.Module,
    critic: nn.Module | None,
    reference: Any = None,
    *,
    functional: bool = True,
) -> tuple[RFTFPPOLoss, torch.optim.Optimizer]:
    """The loss, and the optimizer of what it trains."""
    settings = config.ppo
    loss_module = RFTFPPOLoss(
        policy,
        critic,
        reference_actor=reference,
        functional=functional,
        kl_coeff=settings.kl_coeff,
        kl_target=settings.kl_target,
        clip_epsilon=settings.clip_epsilon,
        entropy_bonus=settings.entropy_coeff > 0,
        entropy_coeff=settings.entropy_coeff,
        critic_coeff=None if critic is None else settings.critic_coeff,
        loss_critic_type="l2",
        normalize_advantage=False,
    ).to(device)
    if critic is not None:
        own = {id(p) for p in policy.parameters() if p.requires_grad}
        if any(id(p) in own for p in critic.parameters()):
            raise ConfigError(
                f"critic={config.critic} trains parameters of the policy, which its own loss would "
                "change: give it a copy (copy.deepcopy), or freeze what both have"
            )
    groups = [
        {
            "params": [p for p in policy.parameters() if p.requires_grad],
            "lr": settings.learning_rate,
        }
    ]
    if critic is not None:
        groups.append({"params": list(critic.parameters()), "lr": settings.critic_learning_rate})
    return loss_module, torch.optim.Adam(groups, eps=1e-5)


def keep_features(config: RunConfig, policy: nn.Module, data: TensorDictBase) -> TensorDictBase:
    """Run the policy's frozen encoders once for all epochs, if their outputs fit into memory."""
    needed = 2 * cache_bytes(policy, data) / 2**30  # in the data and in the replay buffer
    if not needed or not config.ppo.cache_gib:
        return data
    if needed > config.ppo.cache_gib:
        logger.warning(
            "the policy's frozen towers run in every epoch: their features of %d decisions take "
            "%.1f GiB, more than ppo.cache_gib=%g allows",
            len(data),
            needed,
            config.ppo.cache_gib,
        )
        return data
    return cache_features(policy, data, minibatch=config.ppo.minibatch)
