"""Measure how fast a run collects and learns, and say which setting to try next.

    python recipes/bench.py                                             # the settings of a run
    python recipes/bench.py env=calvin policy=smolvlm collector.workers=4
    python recipes/bench.py policy.path=outputs/run/bc/policy.safetensors bench.seconds=60

Takes the settings of ``finetune.py``. Plays training episodes with the policy (with random weights
if none is given or pretrained), more in each round until ``bench.seconds`` are over. The last
round counts, including its end with few episodes left. Then it updates on these episodes, without
a value model. Prints a table and one setting to try next, and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tensordict import TensorDictBase

from rftf_torchrl import (
    BalanceConfig,
    BusyTime,
    ConfigError,
    Episode,
    EpisodeCollector,
    PeakMemory,
    RunConfig,
    Throughput,
    TimedEnvironments,
    TimedPolicy,
    acting_policy,
    autocast,
    keys,
    make_collector,
    make_simulator,
    next_setting,
    recipe,
    resolve_device,
    save_policy,
    seed_everything,
)
from rftf_torchrl.configs.episodes import episode_factory
from rftf_torchrl.configs.learner import make_learner
from rftf_torchrl.configs.policies import new_policy
from rftf_torchrl.cores import usable_cores
from rftf_torchrl.leftovers import temporary_folder
from rftf_torchrl.recipes.finetune import add_advantages, training_episodes, update


@contextmanager
def policy_file(config: RunConfig) -> Iterator[Path]:
    """The policy of ``policy.path``, or one of pretrained or random weights."""
    if config.policy.path is not None:
        yield Path(config.policy.path)
        return
    make_env = make_simulator(config.env).factory("train", config.folder.demonstrations)
    env = make_env(Episode(config.tuned_tasks[0], 0))
    state = env.observation_spec[keys.STATE].shape[-1]
    action = env.full_action_spec[keys.CHUNK].shape[-1]
    env.close()
    policy, spec = new_policy(config, state, action)
    with temporary_folder() as folder:
        save_policy(policy, spec, folder / "policy.safetensors")
        yield folder / "policy.safetensors"


def collect(
    config: RunConfig, simulators: BusyTime, policies: BusyTime
) -> tuple[TensorDictBase, float]:
    """The decisions of the last round, and its seconds."""
    acting, spec = acting_policy(config, config.folder.policy)
    factory = TimedEnvironments(episode_factory(config, "train", spec), simulators)
    per_task, most = 1, config.ppo.episodes_per_task

    def played(collector: EpisodeCollector) -> TensorDictBase:
        ppo = replace(config.ppo, episodes_per_task=per_task, group_size=1)
        with autocast(resolve_device(config.device), config.precision):
            return collector.collect(training_episodes(replace(config, ppo=ppo), per_task))

    with make_collector(factory, TimedPolicy(acting, policies), config.collector) as collector:
        played(collector)  # starts the simulators
        begun = time.perf_counter()
        while True:
            simulators.clear()
            policies.clear()
            start = time.perf_counter()
            data = played(collector)
            seconds = time.perf_counter() - start
            elapsed = time.perf_counter() - begun
            if per_task >= most or elapsed + 2 * seconds > config.bench.seconds:
                return data, seconds
            per_task = min(2 * per_task, most)


def learn(config: RunConfig, data: TensorDictBase) -> float:
    """Decisions a second of one epoch; the first minibatch warms up."""
    device = resolve_device(config.device)
    learner = make_learner(config, device)
    data = add_advantages(config, learner, data.to(device))

    def seconds(part: TensorDictBase) -> float:
        begun = time.perf_counter()
        update(config, learner.loss, learner.optimizer, part, 0, train_policy=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    first = seconds(data[: config.ppo.minibatch])
    count = config.ppo.minibatch * max(1, int(config.bench.seconds / first))
    return min(len(data), count) / seconds(data[:count])


def bench(config: RunConfig) -> Throughput:
    """Measure a run."""
    if config.collector.engine == "ray":
        raise ConfigError(
            "collector.engine=ray: rftf bench adds up what the processes of this machine do; "
            "measure with collector.engine=process"
        )
    seed_everything(config.seed)
    device = resolve_device(config.device)
    on_gpu = device.type == "cuda"
    simulators, policies = BusyTime(), BusyTime()
    with policy_file(config) as file, PeakMemory(interval=0.5) as memory:
        config = replace(
            config.plain_ppo,
            policy=replace(config.policy, path=str(file)),
            balance=BalanceConfig("none"),
            critic="none" if config.critic == "group" else config.plain_ppo.critic,
        )
        data, seconds = collect(config, simulators, policies)
        once = replace(config, ppo=replace(config.ppo, epochs=1, group_size=1))
        samples = learn(once, data)
    workers = config.collector.workers
    served = getattr(config.collector, "policy", "copy") == "server"
    minibatch = config.ppo.minibatch
    return Throughput(
        decisions_per_second=len(data) / seconds,
        mean_batch=policies.rows / policies.calls,
        simulator_idle=max(0.0, 1 - simulators.seconds / seconds / max(workers, 1)),
        policy_idle=max(0.0, 1 - policies.seconds / seconds / (1 if served else max(workers, 1))),
        simulator_ms=1000 * simulators.seconds / simulators.calls,
        policy_ms=1000 * policies.seconds / policies.calls,
        samples_per_second=samples,
        memory_gib=memory.gib,
        gpu_gib=torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None,
        gpu_total_gib=torch.cuda.mem_get_info(device)[1] / 2**30 if on_gpu else 0.0,
        epochs=config.ppo.epochs,
        workers=workers,
        served=served,
        cores=usable_cores(),
        micro_batch=config.ppo.micro_batch or minibatch,
        minibatch=minibatch,
        compiles=config.policy.kind == "transformers" and not config.policy.compile,
    )


@recipe()
def main(config: RunConfig) -> None:
    measured = bench(config)
    print(measured.table())
    print(f"\ntry next: {next_setting(measured)}")


if __name__ == "__main__":
    main()
