"""Fine-tune the cloned policy by PPO on success and temporal feedback (RFTF).

    python recipes/finetune.py output=outputs/run
    python recipes/finetune.py output=outputs/run reward=sparse      # plain PPO, all else equal
    python recipes/finetune.py output=outputs/run critic=temporal    # no critic network
    python recipes/finetune.py output=outputs/run reward=sparse critic=none    # nor anything else
    python recipes/finetune.py output=outputs/run resume=true        # after a kill

Reads the cloned policy and the value model, writes ``<output>/<name>`` (``name`` is ``rftf`` or
``sparse``): the policy, checkpoints, ``metrics.csv`` and TensorBoard events, the learning curve.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import nn
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer

from rftf_torchrl import (
    BalancedTrajectorySampler,
    Episode,
    PhaseClock,
    PolicySpecProtocol,
    RFTFPPOLoss,
    RunCheckpoints,
    RunConfig,
    TemporalValueModel,
    ValueReward,
    accumulate_gradients,
    add_adapters,
    autocast,
    cache_bytes,
    cache_features,
    check_finite,
    clip_and_check_gradients,
    derive_seed,
    exploitation_watch,
    final_value_auc,
    fit_in_memory,
    footprint,
    group_advantage,
    keys,
    label_outcomes,
    load_policy,
    make_gae,
    make_logger,
    make_simulator,
    mark_executed,
    merge_lora,
    plot_learning_curve,
    prepare_output,
    progress_bar,
    read_metrics,
    recipe,
    resolve_device,
    save_policy,
    seed_everything,
    stop_on_non_finite_loss,
    task_names,
    values_of_states,
    warn_if_blind,
    warn_if_exploited,
)
from rftf_torchrl.recipes.policies import build_critic, episode_collector
from rftf_torchrl.recipes.train_bc import policy_file
from rftf_torchrl.recipes.train_value import value_file

logger = logging.getLogger("finetune")


def run_name(config: RunConfig) -> str:
    return "rftf" if config.reward.dense_weight else "sparse"


def training_episodes(config: RunConfig, iteration: int) -> list[Episode]:
    """Fresh training states: the same for every method with this seed and ``ppo.group_size``."""
    group = config.ppo.group_size
    return [
        Episode(
            task, derive_seed(config.seed, "episodes", iteration, task, number // group) % 2**31
        )
        for task in config.tuned_tasks
        for number in range(config.ppo.episodes_per_task)
    ]


def potential(config: RunConfig, device: torch.device) -> TensorDictModuleBase | None:
    """What the dense reward is the difference of."""
    if not config.reward.dense_weight:
        return None
    if config.reward.potential == "environment":
        return TensorDictModule(nn.Identity(), [keys.ENV_POTENTIAL], [keys.TEMPORAL_VALUE])
    return TemporalValueModel.load(value_file(config)).to(device)


def add_state_values(config: RunConfig, data: TensorDictBase, critic: nn.Module | None) -> None:
    """Write the value function that GAE reads, at the root and under ``"next"``."""
    if config.critic == "temporal":
        value, following = data[keys.TEMPORAL_VALUE], data["next", keys.TEMPORAL_VALUE]
    elif critic is None:
        value = following = torch.zeros_like(data["next", keys.REWARD])
    else:
        value, following = values_of_states(critic, data, out_key=keys.STATE_VALUE)
    data[keys.STATE_VALUE] = value
    data["next", keys.STATE_VALUE] = following


def success_rates(data: TensorDictBase, names: dict[int, str]) -> dict[str, float]:
    ends = data[data["next", "done"].squeeze(-1)]
    success = ends["next", keys.SUCCESS].squeeze(-1).float()
    task_ids = ends[keys.TASK_ID].squeeze(-1)
    rates = {
        f"success/{name}": success[task_ids == number].mean() for number, name in names.items()
    }
    by_task = {key: float(rate) for key, rate in rates.items()}
    return {"success": sum(by_task.values()) / len(by_task), **by_task}


def refuse_used_folder(config: RunConfig) -> None:
    """An earlier run's checkpoints are continued or left alone, never mixed with a new run's.

    Raises:
        FileExistsError: when there are some and the run is not told to resume.
    """
    folder = Path(config.output, run_name(config), "checkpoints")
    if not config.resume and any(folder.glob("*")):
        raise FileExistsError(
            f"{folder} holds the checkpoints of an earlier run: continue it with resume=true, or "
            "start afresh with another output=..."
        )


@dataclass(frozen=True)
class Learner:
    """What learns, and what it learns from."""

    policy: nn.Module
    spec: PolicySpecProtocol
    critic: nn.Module | None
    value_model: TensorDictModuleBase | None
    reward: ValueReward
    gae: nn.Module
    loss: RFTFPPOLoss
    optimizer: torch.optim.Optimizer


def make_learner(config: RunConfig, device: torch.device) -> Learner:
    """The cloned policy with all that its fine-tuning needs."""
    settings = config.ppo
    policy, spec = load_policy(policy_file(config), kind=config.policy.kind)
    critic = build_critic(config, policy, spec)
    add_adapters(config, policy)
    policy.to(device)
    reference = "adapters_off" if config.policy.lora_rank is not None else deepcopy(policy)
    fit_in_memory(config, policy)
    if critic is not None:
        critic.to(device)
    value_model = potential(config, device)

    shaped = config.critic in ("learned", "none")
    gamma, bounds = config.reward.shaping_gamma, config.reward.value_range
    reward = ValueReward(
        value_model,
        gamma=settings.gamma if gamma is None else gamma,
        dense_weight=config.reward.dense_weight,
        outcome_weight=config.reward.outcome_weight,
        terminal=config.reward.terminal,
        value_range=bounds and (bounds[0], bounds[1]),
    )
    gae = make_gae(
        gamma=settings.gamma,
        lmbda=settings.lmbda,
        average_gae=True,
        reward_key=keys.REWARD if shaped else keys.OUTCOME_REWARD,
    )
    loss_module = RFTFPPOLoss(
        policy,
        critic,
        reference_actor=reference,
        kl_coeff=settings.kl_coeff,
        kl_target=settings.kl_target,
        clip_epsilon=settings.clip_epsilon,
        entropy_bonus=settings.entropy_coeff > 0,
        entropy_coeff=settings.entropy_coeff,
        critic_coeff=None if critic is None else settings.critic_coeff,
        loss_critic_type="l2",
        normalize_advantage=False,
    ).to(device)
    groups = [
        {
            "params": [p for p in policy.parameters() if p.requires_grad],
            "lr": settings.learning_rate,
        }
    ]
    if critic is not None:
        groups.append({"params": list(critic.parameters()), "lr": settings.critic_learning_rate})
    optimizer = torch.optim.Adam(groups, eps=1e-5)
    return Learner(policy, spec, critic, value_model, reward, gae, loss_module, optimizer)


def add_advantages(config: RunConfig, learner: Learner, data: TensorDictBase) -> TensorDictBase:
    """Rewards, values, advantages, and what else the loss reads of a batch of episodes."""
    settings, policy = config.ppo, learner.policy
    data = label_outcomes(data)
    if not settings.bootstrap_timeouts:
        data["next", "terminated"] = data["next", "done"].clone()
    data = learner.reward(data)
    add_state_values(config, data, learner.critic)
    if config.critic == "group":
        data = group_advantage(data, settings.group_size)
    else:
        data = learner.gae(data)
    with autocast(data.device, config.precision):
        data = keep_features(config, policy, data)
        data = mark_executed(data, policy, minibatch=settings.minibatch)
        data = learner.loss.add_reference(data, minibatch=settings.minibatch)
    check_finite(data, [("next", keys.REWARD), keys.STATE_VALUE, keys.LOG_PROB, keys.ADVANTAGE])
    return data


def keep_features(config: RunConfig, policy: nn.Module, data: TensorDictBase) -> TensorDictBase:
    """Run the policy's frozen towers once for all epochs, where what they give fits."""
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


def make_buffer(config: RunConfig, device: torch.device) -> TensorDictReplayBuffer:
    """Holds the decisions of one iteration."""
    most = len(training_episodes(config, 0)) * config.env.horizon
    storage = LazyTensorStorage(most, device=device)
    return TensorDictReplayBuffer(storage=storage, batch_size=config.ppo.minibatch)


def finetune(
    config: RunConfig,
    clock: PhaseClock | None = None,
    on_iteration: Callable[[int, nn.Module, dict[str, int]], None] | None = None,
) -> dict:
    """Run the fine-tuning and return where it ended; progress lands in the output folder.

    ``on_iteration(iterations, policy, progress)`` is called after each iteration.
    """
    refuse_used_folder(config)
    clock = clock or PhaseClock()
    device = resolve_device(config.device)
    seed_everything(derive_seed(config.seed, "finetune"))
    settings, name = config.ppo, run_name(config)
    folder = prepare_output(Path(config.output, name))
    learner = make_learner(config, device)
    policy, spec, critic = learner.policy, learner.spec, learner.critic
    value_model, loss_module, optimizer = learner.value_model, learner.loss, learner.optimizer
    adapted = config.policy.lora_rank is not None
    buffer = make_buffer(config, device)
    simulator = make_simulator(config.env)
    names = task_names(simulator, config.tuned_tasks)
    progress = {"env_steps": 0, "crashed": 0}
    checkpoints = RunCheckpoints(
        folder / "checkpoints",
        policy=policy,
        loss=loss_module,
        optimizer=optimizer,
        progress=progress,
    )
    done = checkpoints.load() if config.resume and checkpoints.files() else 0
    warmup = settings.critic_warmup if critic is not None else 0
    iterations = settings.iterations + warmup
    exploited = False
    bar = progress_bar(range(done, iterations), name)
    with (
        episode_collector(config, "train", policy, spec) as collector,
        make_logger(config.logger.kind, folder, {"seed": config.seed}) as log,
    ):
        for iteration in bar:
            if settings.env_steps and progress["env_steps"] >= settings.env_steps:
                break
            with clock(f"{name}: collect"), autocast(device, config.precision):
                collector.update_policy_weights_()
                data = collector.collect(
                    training_episodes(config, iteration),
                    seed=derive_seed(config.seed, "noise", iteration),
                )
            executed = int(data["next", "executed"].sum())
            progress["env_steps"] += executed * simulator.steps_per_action
            progress["crashed"] += collector.crashed
            collector.crashed = 0
            with clock(f"{name}: rewards and values"):
                data = add_advantages(config, learner, data.to(device))
            metrics = {**success_rates(data, names), **progress}
            if value_model is not None:
                metrics |= exploitation_watch(data)
                if iteration == 0:
                    separation = final_value_auc(data)
                    metrics["first_rollouts/value_auc"] = separation["final_auc"]
                    warn_if_blind(separation["final_auc"])
            with clock(f"{name}: update"):
                metrics |= update(
                    config,
                    loss_module,
                    optimizer,
                    buffer,
                    data,
                    iteration,
                    train_policy=iteration >= warmup,
                )
            log.log(metrics, iteration)
            if value_model is not None and not exploited:
                exploited = warn_if_exploited(read_metrics(folder / "metrics.csv"))
            bar.set_postfix(success=f"{metrics['success']:.2f}", kl=f"{metrics['kl']:.3f}")
            if on_iteration is not None:
                on_iteration(iteration + 1, policy, dict(progress))
            last = iteration + 1 == iterations or (
                settings.env_steps is not None and progress["env_steps"] >= settings.env_steps
            )
            if last or (iteration + 1) % settings.checkpoint_every == 0:
                with clock(f"{name}: checkpoints"):
                    checkpoints.save(iteration + 1)
                    whole = merge_lora(deepcopy(policy)) if adapted else policy
                    save_policy(whole, spec, folder / "policy.safetensors")
    parts = {"policy": policy, "critic": critic, "value model": value_model}
    held = {part: module for part, module in parts.items() if module is not None}
    table = footprint(held, optimizer=optimizer, seconds=clock.seconds, device=device)
    logger.info("what fine-tuning held and took:\n%s", table)
    plot_learning_curve(
        read_metrics(folder / "metrics.csv"),
        folder / "learning_curve.png",
        labels=("RFTF" if config.reward.dense_weight else "plain PPO", ""),
        title="success while training: fresh training states, sampled actions",
        window=5,
    )
    return {"policy": str(folder / "policy.safetensors"), **progress}


def update(
    config: RunConfig,
    loss_module: RFTFPPOLoss,
    optimizer: torch.optim.Optimizer,
    buffer: TensorDictReplayBuffer,
    data: TensorDictBase,
    iteration: int,
    *,
    train_policy: bool,
) -> dict[str, float]:
    """The epochs of one iteration; without ``train_policy`` only the critic learns."""
    settings = config.ppo
    seed = derive_seed(config.seed, "minibatches", iteration)
    balanced = config.balance.kind == "outcome" and train_policy
    torch.manual_seed(seed)
    buffer.empty()
    buffer.set_sampler(
        BalancedTrajectorySampler(seed=seed) if balanced else SamplerWithoutReplacement()
    )
    buffer.extend(data.exclude("next"))
    gradients = partial(
        accumulate_gradients,
        loss_module,
        micro_batch=settings.micro_batch or settings.minibatch,
        context=lambda: autocast(data.device, config.precision),
    )
    totals: dict[str, list[float]] = {}
    critic, limit = "loss_critic" in loss_module.out_keys, settings.max_update_kl
    terms = None if train_policy else ["loss_critic"]
    for _ in range(settings.epochs if train_policy else settings.critic_warmup_epochs):
        for batch in buffer:
            optimizer.zero_grad()
            losses = gradients(batch, terms=terms)
            stop_on_non_finite_loss(losses)
            if limit and not terms and losses["kl_approx"] > limit:
                terms = ["loss_critic"]
                optimizer.zero_grad()
                if critic:
                    losses = gradients(batch, terms=terms)
            if terms and not critic:
                break
            norm = clip_and_check_gradients(loss_module.named_parameters(), settings.max_grad_norm)
            optimizer.step()
            measured = {k: float(v) for k, v in losses.detach().items() if v.numel() == 1}
            for key, value in {**measured, "gradient_norm": float(norm)}.items():
                totals.setdefault(key, []).append(value)
    means = {key: sum(values) / len(values) for key, values in totals.items()}
    if train_policy and "kl_reference" in means:
        means["kl_coeff"] = loss_module.adapt_kl(means["kl_reference"])
    means["kl"] = means.get("kl_approx", 0.0)
    return means


@recipe()
def main(config: RunConfig) -> None:
    logger.info("%s", finetune(config))


if __name__ == "__main__":
    main()
