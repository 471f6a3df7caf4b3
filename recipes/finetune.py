"""Fine-tune the cloned policy by PPO on success and temporal feedback (RFTF).

    python recipes/finetune.py output=outputs/run
    python recipes/finetune.py output=outputs/run reward=sparse      # plain PPO, all else equal
    python recipes/finetune.py output=outputs/run reward=rftf critic=temporal    # no critic network
    python recipes/finetune.py output=outputs/run reward=sparse critic=none    # outcomes alone
    python recipes/finetune.py output=outputs/run resume=true        # after a kill
    torchrun --nproc-per-node=2 -m rftf_torchrl.recipes.finetune output=outputs/run    # two GPUs

Reads the cloned policy and the value model, writes ``<output>/<name>`` (``name`` is ``rftf`` or
``sparse``): the policy, the value model where it went on learning, checkpoints, ``metrics.csv``
and TensorBoard events, the learning curve.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDictBase
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
    accumulate_gradients,
    autocast,
    check_finite,
    check_first_ratio,
    clip_and_check_gradients,
    derive_seed,
    exploitation_watch,
    final_value_auc,
    keys,
    label_failure_rates,
    label_outcomes,
    label_time_left,
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
    success_rates,
    task_names,
    warn_if_blind,
    warn_if_exploited,
)
from rftf_torchrl.configs.episodes import episode_collector
from rftf_torchrl.configs.learner import (
    Learner,
    keep_features,
    make_learner,
    refuse_to_tune,
    shard,
)
from rftf_torchrl.configs.record import environment, tuned_by, warn_of_other_options
from rftf_torchrl.configs.run import stage
from rftf_torchrl.digests import write_record
from rftf_torchrl.evaluation.unknown_instructions import warn_if_unknown
from rftf_torchrl.recipes.refresh_value import ValueRefresh
from rftf_torchrl.training.acted_weights import ActedWeights
from rftf_torchrl.training.processes import first_says, is_first, joined
from rftf_torchrl.training.sharding import naming_what_cannot_be_divided

logger = logging.getLogger("finetune")


def budget(config: RunConfig) -> str:
    """How many simulator steps it may take in all, in words, where they are limited."""
    if config.ppo.env_steps is None:
        return ""
    longest = config.env.horizon * config.env.chunk_size
    longest *= make_simulator(config.env).steps_per_action
    iteration = longest * config.ppo.episodes_per_task * len(config.tuned_tasks)
    return (
        f", until {config.ppo.env_steps:,} simulator steps are played, at most "
        f"{config.ppo.env_steps - 1 + iteration:,}, as an iteration is played to its end"
    )


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


def add_advantages(config: RunConfig, learner: Learner, data: TensorDictBase) -> TensorDictBase:
    """Rewards, values, advantages, and what else the loss reads of a batch of episodes."""
    settings, policy = config.ppo, learner.policy
    data["acted_log_prob"] = data[keys.LOG_PROB].clone()
    data = label_outcomes(data)
    if config.reward.fade:
        data = label_failure_rates(data)
    if not settings.bootstrap_timeouts:
        data["next", "terminated"] = data["next", "done"].clone()
        data = label_time_left(data, config.env.horizon)
    data = learner.reward(data)
    data = learner.advantages(data)
    with autocast(data.device, config.precision):
        data = keep_features(config, policy, data)
        with learner.acted():
            data = mark_executed(data, policy, minibatch=settings.minibatch)
        data = learner.loss.add_reference(data, minibatch=settings.minibatch)
    check_finite(data, [("next", keys.REWARD), keys.STATE_VALUE, keys.LOG_PROB, keys.ADVANTAGE])
    return data


def first_ratio(config: RunConfig, learner: Learner, data: TensorDictBase) -> float:
    """Compare with the rollout's log-probabilities, on a minibatch's number of all decisions.

    They are of whole chunks: the policy did not know yet what would be executed.
    """
    settings = config.ppo
    rows = torch.linspace(0, len(data) - 1, min(len(data), settings.minibatch)).long()
    rows = rows.to(data.device)
    acted = data.exclude("next", keys.EXECUTED)[rows]
    acted[keys.LOG_PROB] = acted.pop("acted_log_prob")
    with autocast(data.device, config.precision), learner.acted():
        return check_first_ratio(
            learner.loss,
            acted,
            bound=settings.ratio_bound,
            minibatch=settings.micro_batch or settings.minibatch,
        )


@stage(
    "finetune",
    "fine-tuning",
    about=lambda config: (
        f"{config.name}, {config.ppo.iterations:,} iterations of {config.ppo.episodes_per_task} "
        f"episodes of each of {len(config.tuned_tasks)} tasks in {config.env.kind}"
        f"{budget(config)}, "
        f"critic {config.critic}, on {resolve_device(config.device)}"
    ),
    writes=lambda config: config.tuned.root,
    name=lambda config: config.name,
    entitled=refuse_to_tune,
)
def finetune(
    config: RunConfig,
    clock: PhaseClock | None = None,
    on_iteration: Callable[[int, nn.Module, dict[str, int]], None] | None = None,
) -> dict[str, Any]:
    """Run the fine-tuning and return where it ended; progress lands in the output folder.

    ``on_iteration(iterations, policy, progress)`` is called after each iteration. Of several
    processes the first one does all but the update, in which each computes a part of every
    minibatch.
    """
    clock = clock or PhaseClock()
    device = resolve_device(config.device)
    seed_everything(derive_seed(config.seed, "finetune"))
    settings, name = config.ppo, config.name
    folder = config.tuned.root
    tuned: dict[str, Any] = {}
    if is_first():
        prepare_output(folder)
        config.tuned.end.unlink(missing_ok=True)
        warn_of_other_options(config)
        tuned = tuned_by(config)
        write_record(config.tuned.settings, tuned)
        tuned |= environment(config)
    own = device if is_first() or not settings.shard else torch.device("cpu")
    learner = make_learner(config, own)
    policy, spec = learner.policy, learner.spec
    value_model = learner.reward.value_model
    simulator = make_simulator(config.env)
    names = task_names(simulator, config.tuned_tasks)
    progress = {"env_steps": 0, "crashed": 0}
    refresh = None
    if config.value.refresh_steps and value_model is not None:
        refresh = ValueRefresh(config, value_model)
    acted = learner.acted
    further: dict[str, Any] = {} if refresh is None else refresh.state()
    if isinstance(acted, ActedWeights):
        further["acted"] = acted
    checkpoints = RunCheckpoints(
        config.tuned.checkpoints,
        loss=learner.loss,
        optimizer=learner.optimizer,
        progress=progress,
        **further,
    )
    done = restore(config, checkpoints)
    sharded = shard(config, learner, device) if settings.shard else None
    learning = sharded or learner

    def learn(
        data: TensorDictBase, iteration: int, *, train_policy: bool, saved: bool
    ) -> dict[str, float]:
        measured = update(
            config,
            learning.loss,
            learning.optimizer,
            data,
            iteration,
            train_policy=train_policy,
        )
        if sharded is not None:
            sharded.give(state=saved)
        return measured

    if not is_first():
        while (said := first_says()) is not None:
            data, iteration, how = said
            learn(data.to(device), iteration, **how)
        return {}
    if done and refresh is not None:
        refresh.publish()
    warmup = settings.critic_warmup if learner.critic is not None else 0
    iterations = settings.iterations + warmup
    exploited = False
    if done:
        logger.info("%s: continues after iteration %d", name, done)
    if done < warmup:
        logger.info("%s: up to iteration %d the critic alone learns", name, warmup)
    bar = progress_bar(range(done, iterations), name, unit="iterations")
    with (
        ThreadPoolExecutor(1, "collect") as thread,
        episode_collector(config, "train", policy, spec) as collector,
        make_logger(config.logger.kind, folder, {"seed": config.seed}) as log,
    ):

        def collect(iteration: int) -> TensorDictBase:
            with autocast(device, config.precision):
                return collector.collect(
                    training_episodes(config, iteration),
                    seed=derive_seed(config.seed, "noise", iteration),
                )

        log.metrics.go_on_from(done)
        begun: Callable[[], TensorDictBase] | None = None
        for iteration in bar:
            if settings.env_steps and progress["env_steps"] >= settings.env_steps:
                break
            with clock(f"{name}: collect"):
                if begun is None:
                    with acted():
                        collector.update_policy_weights_()
                data = collect(iteration) if begun is None else begun()
            executed = int(data["next", "executed"].sum())
            progress["env_steps"] += executed * simulator.steps_per_action
            progress["crashed"] += collector.crashed
            collector.crashed = 0
            last = iteration + 1 == iterations or (
                settings.env_steps is not None and progress["env_steps"] >= settings.env_steps
            )
            if settings.overlap and not last:
                collector.update_policy_weights_()
                begun = partial(collect, iteration + 1)
                if config.collector.workers:
                    begun = thread.submit(begun).result
            auc = None
            if refresh is not None:
                with clock(f"{name}: value model"):
                    auc = refresh.learn(data, iteration)
            with clock(f"{name}: rewards and values"):
                data = add_advantages(config, learner, data.to(device))
                ratio_error = first_ratio(config, learner, data)
            metrics = {**success_rates(data, names), **progress, "ratio_error": ratio_error}
            if value_model is not None:
                metrics |= exploitation_watch(data)
                metrics["value_auc"] = final_value_auc(data)["final_auc"] if auc is None else auc
                if iteration == 0:
                    warn_if_blind(metrics["value_auc"])
                    warn_if_unknown(value_model, data, names)
            if isinstance(acted, ActedWeights):
                acted.keep()
            with clock(f"{name}: update"):
                saved = last or (iteration + 1) % settings.checkpoint_every == 0
                how = {"train_policy": iteration >= warmup, "saved": saved}
                if dist.is_initialized():
                    first_says((data.exclude("next").cpu(), iteration, how))
                metrics |= learn(data, iteration, **how)
            log.log(metrics, iteration)
            if value_model is not None and not exploited:
                exploited = warn_if_exploited(read_metrics(config.tuned.metrics))
            bar.set_postfix(success=f"{metrics['success']:.2f}", kl=f"{metrics['kl']:.3f}")
            if on_iteration is not None:
                on_iteration(iteration + 1, policy, dict(progress))
            if saved:
                with clock(f"{name}: checkpoints"):
                    checkpoints.save(iteration + 1)
                    if not last:  # the last one is published below, after a resume too
                        publish(config, policy, spec, refresh, tuned)
    publish(config, policy, spec, refresh, tuned)
    logger.info("what fine-tuning held and took:\n%s", learner.footprint(clock.seconds, device))
    if config.tuned.metrics.is_file():  # may be removed where nothing is left to play
        plot_learning_curve(
            read_metrics(config.tuned.metrics, ended=True),
            folder / "learning_curve.png",
            labels=("RFTF" if config.reward.dense_weight else "plain PPO", ""),
            title="success while training: fresh training states, sampled actions",
            window=5,
        )
    steps, crashed = f"{progress['env_steps']:,}", progress["crashed"]
    logger.info("%s: %s simulator steps, %d crashed episodes", name, steps, crashed)
    first_says(None)
    return {"policy": str(config.tuned.policy), **progress}


def restore(config: RunConfig, checkpoints: RunCheckpoints) -> int:
    """Load a resumed run's newest checkpoint, in the first process and then in the others."""
    done = 0
    if is_first() and config.resume:
        done = checkpoints.load() if checkpoints.files() else 0
        checkpoints.clear()
    done = int(first_says(done))
    if done and not is_first():
        checkpoints.load()
    return done


def publish(
    config: RunConfig,
    policy: nn.Module,
    spec: PolicySpecProtocol,
    refresh: ValueRefresh | None,
    tuned: Mapping[str, Any],
) -> None:
    """Save the newest checkpoint's policy, with its adapters merged, and what values it learned."""
    whole = policy if config.policy.lora_rank is None else merge_lora(deepcopy(policy))
    save_policy(whole, spec, config.tuned.policy, made_by=tuned)
    if refresh is not None:
        refresh.save()


def update(
    config: RunConfig,
    loss_module: RFTFPPOLoss,
    optimizer: torch.optim.Optimizer,
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
    # A buffer of its own: one that is filled again keeps entries that the new data lacks.
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(len(data), device=data.device),
        sampler=BalancedTrajectorySampler(seed=seed) if balanced else SamplerWithoutReplacement(),
        batch_size=settings.minibatch,
    )
    group = dist.group.WORLD if dist.is_initialized() else None
    if group:  # the same minibatches in all processes, whatever random numbers a policy draws
        own = None if balanced else torch.Generator(data.device).manual_seed(seed)
        buffer.set_rng(own)  # balanced: the sampler has one
    buffer.extend(data.exclude("next", "acted_log_prob"))
    gradients = partial(
        accumulate_gradients,
        loss_module,
        micro_batch=settings.micro_batch or settings.minibatch,
        context=partial(_forward, config, data.device),
        group=group,
    )
    simulator: Any = make_simulator(config.env)
    generator = torch.Generator().manual_seed(seed)
    totals: dict[str, list[float]] = {}
    terms = None if train_policy else ["loss_critic"]
    for _ in range(settings.epochs if train_policy else settings.critic_warmup_epochs):
        for batch in buffer:
            if terms and config.augment:  # of the critic alone: nothing is acted
                batch = simulator.augment(batch, config.augment, generator)
            optimizer.zero_grad()
            losses = gradients(batch, terms=terms)
            if terms and config.augment:  # the policy never saw these states
                losses = losses.select(*terms, "explained_variance", strict=False)
            stop_on_non_finite_loss(losses)
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


@contextmanager
def _forward(config: RunConfig, device: torch.device) -> Iterator[None]:
    with naming_what_cannot_be_divided(), autocast(device, config.precision):
        yield


@recipe(several=True)
def main(config: RunConfig) -> None:
    with joined(config.device, config.collector.timeout):
        finetune(config)


if __name__ == "__main__":
    main()
