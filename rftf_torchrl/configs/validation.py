"""Check a composed configuration and list everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.configs.policies import run_sizes
from rftf_torchrl.configs.schema import PPOConfig, RewardConfig, RunConfig
from rftf_torchrl.data.readers.door import guess_reader, reader_problems
from rftf_torchrl.data.readers.settings import DataConfig
from rftf_torchrl.envs.simulator import (
    CollectorConfig,
    EnvConfig,
    simulator_class,
    simulator_problems,
)
from rftf_torchrl.objectives.advantages import CRITICS
from rftf_torchrl.objectives.ppo import KL_BOUNDS
from rftf_torchrl.policies.spec import policy_problems
from rftf_torchrl.rewards.forms import gamma_option, keeps_failures, reward_form
from rftf_torchrl.settings import setting_problems
from rftf_torchrl.values.kinds import value_problems


class ConfigError(ValueError):
    """The configuration can't be run; the message lists every reason."""


def check_config(config: DictConfig) -> RunConfig:
    """Turn a composed configuration into a :class:`RunConfig`.

    Raises:
        ConfigError: listing every setting that is missing or out of its range.

    Example:
        >>> from omegaconf import OmegaConf
        >>> config = OmegaConf.structured(RunConfig(output="outputs/run"))
        >>> config.env.tasks = ["drawer-open"]
        >>> check_config(config).env.tasks
        ['drawer-open']
    """
    missing = OmegaConf.missing_keys(config)
    problems = [f"{key} is not set" for key in sorted(missing)]
    given = cast(dict[str, Any], OmegaConf.to_container(config))
    problems += [
        problem
        for problem in setting_problems(RunConfig, given)
        if problem.partition("=")[0] not in missing
    ]
    if missing:
        raise _error(problems)
    run = cast(RunConfig, OmegaConf.to_object(config))
    micro, minibatch = run.ppo.micro_batch, run.ppo.minibatch
    if micro is not None and micro > minibatch:
        problems.append(f"ppo.micro_batch={micro}: must be at most ppo.minibatch={minibatch}")
    problems += _data_problems(run.data)
    problems += _output_problems(run)
    problems += _collector_problems(run.collector)
    of_simulator = simulator_problems(run.env)
    problems += of_simulator
    if set(run.cloning.tasks or ()) - set(run.env.tasks):
        problems.append(
            f"cloning.tasks={run.cloning.tasks}: expected tasks of env.tasks; cloning.tasks=null "
            "clones all"
        )
    if set(run.tuned_tasks) - set(run.env.tasks):
        problems.append(
            f"ppo.tasks={run.tuned_tasks}: expected tasks of env.tasks; ppo.tasks=null tunes all"
        )
    if run.ppo.overlap and run.collector.policy == "server":
        problems.append(
            "ppo.overlap=true: while the policy learns, only copies of it can play: set "
            "collector.policy=copy"
        )
    if run.ppo.shard and run.policy.compile:
        problems.append(
            "ppo.shard=true: a divided policy is not compiled: set policy.compile=false"
        )
    problems += value_problems(run.value.kind, run.value.options)
    if run.value.kind == "pretrained" and run.image_size is None:
        problems.append("value.kind=pretrained needs images: set env.image_size")
    if run.augment and not hasattr(simulator_class(run.env.kind), "augment"):
        problems.append(f"augment={run.augment}: {run.env.kind} has no symmetry to augment by")
    elif run.augment and run.env.image_size is not None:
        problems.append(
            f"augment={run.augment}: changes the state, not images: set env.image_size=null"
        )
    if not of_simulator:
        problems += policy_problems(run.policy, run_sizes(run))
    low, high = KL_BOUNDS
    if run.ppo.kl_coeff and not low <= run.ppo.kl_coeff <= high:
        problems.append(
            f"ppo.kl_coeff={run.ppo.kl_coeff}: must be 0, or between {low} and {high:g}"
        )
    if run.data.path is not None and run.value.successes:
        problems.append(
            "value.successes=true: orders the policy's own successes, and with data.path there are "
            "none: use value=ranking or value=ranking_failures"
        )
    problems += _advantage_problems(run.critic, run.ppo, run.reward)
    problems += _reward_problems(run.reward, run.ppo, run.env)
    steps, reward = run.value.refresh_steps, run.reward
    if steps and not (reward.dense_weight and reward.potential == "value"):
        problems.append(
            f"value.refresh_steps={steps}: no value model pays this run: set "
            "value.refresh_steps=0, or reward.dense_weight above 0 and reward.potential=value"
        )
    if problems:
        raise _error(problems)
    return run


def _error(problems: list[str]) -> ConfigError:
    return ConfigError("the configuration can't be run:\n  - " + "\n  - ".join(problems))


def _data_problems(data: DataConfig) -> list[str]:
    """Settings of data from outside that its reader refuses."""
    kind = data.kind
    try:
        if data.path is not None and kind is None:
            kind = guess_reader(data.path)
    except (ValueError, OSError) as error:
        return [f"data.path={data.path}: {error}"]
    return [] if kind is None else reader_problems(kind, data.options, "data.options.")


def _output_problems(run: RunConfig) -> list[str]:
    """A folder within the data, where a reader would find the run's own images and videos."""
    if run.data.path is None or not Path(run.data.path).is_dir():
        return []
    try:
        if (run.data.kind or guess_reader(run.data.path)) not in ("videos", "hdf5"):
            return []
    except (ValueError, OSError):  # told by another problem
        return []
    data = Path(run.data.path).resolve()
    return [
        f"{name}={folder} lies in data.path={run.data.path}, so that the images and videos of the "
        "run would be read as data: choose a folder elsewhere"
        for name, folder in (("output", run.output), ("data.cache", run.data.cache))
        if folder is not None and Path(folder).resolve().is_relative_to(data)
    ]


def _collector_problems(collector: CollectorConfig) -> list[str]:
    """Settings of an engine that the other does not have."""
    problems = []
    if collector.engine == "ray" and not collector.workers:
        problems.append("collector.engine=ray: needs simulators, collector.workers=1 or more")
    if collector.engine != "ray" and collector.gpus_per_simulator:
        problems.append(
            f"collector.gpus_per_simulator={collector.gpus_per_simulator:g}: is for "
            "collector.engine=ray; processes share all GPUs"
        )
    return problems


def _advantage_problems(critic: str, ppo: PPOConfig, reward: RewardConfig) -> list[str]:
    """Settings of the critic that contradict others or would have no effect."""
    problems = []
    group, episodes = ppo.group_size, ppo.episodes_per_task
    try:
        CRITICS.find(critic)
    except ValueError as error:
        problems.append(f"critic={critic}: {error}")
    if critic == "temporal" and reward.dense_weight == 0:
        problems.append(
            "critic=temporal uses the value model, and reward.dense_weight=0 asks for a run "
            "without it: choose critic=learned, or reward=rftf"
        )
    weights = (reward.dense_weight, reward.outcome_weight)
    paid = (reward.form, reward.options, *weights, reward.fade)
    whole: tuple[Any, ...] = ("difference", {}, 1.0, 1.0, False)
    if critic == "temporal" and reward.dense_weight and paid != whole:
        problems.append(
            "critic=temporal judges by the value model itself and is paid success alone, so the "
            "reward's form, options, weights and fade would have no effect: choose reward=rftf"
        )
    if critic == "group" and reward.dense_weight > 0:
        problems.append("critic=group compares outcomes alone: choose reward=sparse")
    if (critic == "group") != (group > 1) or episodes % group:
        problems.append(
            f"ppo.group_size={group}: critic=group needs at least 2, every other critic 1, and it "
            f"must divide ppo.episodes_per_task={episodes}"
        )
    return problems


def _reward_problems(reward: RewardConfig, ppo: PPOConfig, env: EnvConfig) -> list[str]:
    """Settings of the reward that do not go together, and what its form refuses."""
    problems = []
    if "gamma" in reward.options:
        problems.append("reward.options.gamma: the reward's discount is ppo.gamma")
    try:
        options = {**gamma_option(reward.form, 0.5), **reward.options}
        _, columns = reward_form(reward.form, options, "reward.options.")
        problems += _failure_problems(reward, ppo, columns)
    except ValueError as error:
        problems.append(f"reward.form={reward.form}: {error}")
    if reward.fade and not reward.dense_weight:
        problems.append(
            "reward.fade=true: there is no dense reward to fade: set reward.fade=false, or "
            "reward.dense_weight above 0"
        )
    bounds = reward.value_range
    if bounds is not None and len(bounds) == 2 and not bounds[0] < bounds[1]:
        problems.append(f"reward.value_range={bounds}: must be [low, high] with low < high")
    if reward.potential == "environment" and not _has_potential(env.kind):
        problems.append(f"reward.potential=environment: {env.kind} has no dense reward of its own")
    return problems


def _failure_problems(reward: RewardConfig, ppo: PPOConfig, columns: Sequence[str]) -> list[str]:
    """Settings under which a failure that keeps what it reached would be paid wrongly."""
    if not (keeps_failures(columns) and reward.dense_weight):
        return []
    problems = []
    if ppo.bootstrap_timeouts and not reward.fade:  # what fades did better so: results/fading.md
        problems.append(
            f"reward.form={reward.form} lets a failure keep what it reached, and with "
            "ppo.bootstrap_timeouts=true the critic would go on from there: set "
            "ppo.bootstrap_timeouts=false"
        )
    if reward.dense_weight >= reward.outcome_weight:
        problems.append(
            f"reward.dense_weight={reward.dense_weight:g}: a failure earns up to that under "
            f"reward.form={reward.form}, so it must be below "
            f"reward.outcome_weight={reward.outcome_weight:g}"
        )
    return problems


def _has_potential(kind: str) -> bool:
    try:
        return bool(getattr(simulator_class(kind), "has_potential", False))
    except ValueError:
        return True  # that there is no such simulator is said already
