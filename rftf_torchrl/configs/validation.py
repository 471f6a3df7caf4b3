"""Check a composed configuration and list everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.configs.policies import run_sizes
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.envs.simulator import EnvConfig, simulator_class, simulator_problems
from rftf_torchrl.objectives.advantages import CRITICS
from rftf_torchrl.policies.build import policy_problems
from rftf_torchrl.rewards.forms import gamma_option, reward_form
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

    def value(key: str) -> Any:
        return OmegaConf.select(config, key)

    micro, minibatch = value("ppo.micro_batch"), value("ppo.minibatch")
    if micro is not None and micro > minibatch:
        problems.append(f"ppo.micro_batch={micro}: must be at most ppo.minibatch={minibatch}")
    tasks, tuned = list(config.env.tasks), value("ppo.tasks")
    of_simulator = simulator_problems(EnvConfig(**given["env"]))
    problems += of_simulator
    if tuned is not None and set(tuned) - set(tasks):
        problems.append(
            f"ppo.tasks={list(tuned)}: expected tasks of env.tasks; ppo.tasks=null tunes all"
        )
    options = cast(dict[str, Any], OmegaConf.to_container(value("value.options")))
    problems += value_problems(value("value.kind"), options)
    if value("value.kind") == "pretrained" and value("env.image_size") is None:
        problems.append("value.kind=pretrained needs pictures: set env.image_size")
    run = cast(RunConfig, OmegaConf.to_object(config))
    if not of_simulator:
        problems += policy_problems(run.policy, run_sizes(run))
    problems += _advantage_problems(value)
    problems += _reward_problems(value)
    if problems:
        raise _error(problems)
    return run


def _error(problems: list[str]) -> ConfigError:
    return ConfigError("the configuration can't be run:\n  - " + "\n  - ".join(problems))


def _advantage_problems(value: Callable[[str], Any]) -> list[str]:
    """Settings of the critic that contradict others or would have no effect."""
    problems = []
    critic, group, episodes = (
        value("critic"),
        value("ppo.group_size"),
        value("ppo.episodes_per_task"),
    )
    try:
        CRITICS.find(critic)
    except ValueError as error:
        problems.append(f"critic={critic}: {error}")
    if critic == "temporal" and value("reward.dense_weight") == 0:
        problems.append(
            "critic=temporal uses the value model, and reward.dense_weight=0 asks for a run "
            "without it: choose critic=learned, or reward=rftf"
        )
    if critic == "group" and value("reward.dense_weight") > 0:
        problems.append("critic=group compares outcomes alone: choose reward=sparse")
    if (critic == "group") != (group > 1) or episodes % group:
        problems.append(
            f"ppo.group_size={group}: critic=group needs at least 2, every other critic 1, and it "
            f"must divide ppo.episodes_per_task={episodes}"
        )
    return problems


def _reward_problems(value: Callable[[str], Any]) -> list[str]:
    """Settings of the reward that do not go together, and what its form refuses."""
    problems = []
    options = cast(dict[str, Any], OmegaConf.to_container(value("reward.options")))
    if "gamma" in options:
        problems.append("reward.options.gamma: the reward's discount is ppo.gamma")
    try:
        form = value("reward.form")
        reward_form(form, {**gamma_option(form, 0.5), **options}, "reward.options.")
    except ValueError as error:
        problems.append(f"reward.form={value('reward.form')}: {error}")
    bounds = value("reward.value_range")
    if bounds is not None and not bounds[0] < bounds[1]:
        problems.append(f"reward.value_range={list(bounds)}: must be [low, high] with low < high")
    if value("reward.potential") == "environment" and not _has_potential(value("env.kind")):
        problems.append(
            f"reward.potential=environment: {value('env.kind')} has no dense reward of its own"
        )
    return problems


def _has_potential(kind: str) -> bool:
    try:
        return bool(getattr(simulator_class(kind), "has_potential", False))
    except ValueError:
        return True  # that there is no such simulator is said already
