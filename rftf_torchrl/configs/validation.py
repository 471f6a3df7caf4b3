"""Check a composed configuration and list everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.configs.policies import run_sizes
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.envs.simulator import EnvConfig, simulator_class, simulator_problems
from rftf_torchrl.policies.build import policy_problems
from rftf_torchrl.settings import setting_problems


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
    if value("value.image_tower") is not None and value("env.image_size") is None:
        problems.append("value.image_tower needs pictures: set env.image_size")
    run = cast(RunConfig, OmegaConf.to_object(config))
    if not of_simulator:
        problems += policy_problems(run.policy, run_sizes(run))
    problems += _advantage_problems(value)
    if problems:
        raise _error(problems)
    return run


def _error(problems: list[str]) -> ConfigError:
    return ConfigError("the configuration can't be run:\n  - " + "\n  - ".join(problems))


def _advantage_problems(value: Callable[[str], Any]) -> list[str]:
    """Settings of critic and reward that contradict each other or would have no effect."""
    problems = []
    critic, group, episodes = (
        value("critic"),
        value("ppo.group_size"),
        value("ppo.episodes_per_task"),
    )
    if critic in ("temporal", "residual"):
        if value("reward.dense_weight") == 0:
            problems.append(
                f"critic={critic} uses the value model, and reward.dense_weight=0 asks for a run "
                "without it: choose critic=learned, or reward=rftf"
            )
        if value("reward.shaping_gamma") is not None:
            problems.append(
                f"reward.shaping_gamma has no effect with critic={critic}, which is not trained on "
                "the shaped reward"
            )
    if critic == "group" and value("reward.dense_weight") > 0:
        problems.append("critic=group compares outcomes alone: choose reward=sparse")
    if (critic == "group") != (group > 1) or episodes % group:
        problems.append(
            f"ppo.group_size={group}: critic=group needs at least 2, every other critic 1, and it "
            f"must divide ppo.episodes_per_task={episodes}"
        )
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
