"""Check a composed configuration and list everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.envs.simulator import EnvConfig, simulator_class, simulator_problems
from rftf_torchrl.policies.spec import spec_class
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
    problems += simulator_problems(EnvConfig(**given["env"]))
    if tuned is not None and set(tuned) - set(tasks):
        problems.append(
            f"ppo.tasks={list(tuned)}: expected tasks of env.tasks; ppo.tasks=null tunes all"
        )
    if value("value.image_tower") is not None and value("env.image_size") is None:
        problems.append("value.image_tower needs pictures: set env.image_size")
    problems += _policy_problems(value)
    problems += _advantage_problems(value)
    if problems:
        raise _error(problems)
    return cast(RunConfig, OmegaConf.to_object(config))


def _error(problems: list[str]) -> ConfigError:
    return ConfigError("the configuration can't be run:\n  - " + "\n  - ".join(problems))


def _policy_problems(value: Callable[[str], Any]) -> list[str]:
    """Settings that a kind of policy needs, or that it would pass over in silence."""
    problems = []
    kind, rank = value("policy.kind"), value("policy.lora_rank")
    try:
        spec_class(kind)
    except ValueError as error:
        problems.append(f"policy.kind: {error}")
    if kind == "transformers":
        if not value("policy.pretrained"):
            problems.append(
                "policy.pretrained: a policy on a vision-language model needs its folder or hub id"
            )
        if value("env.image_size") is None:
            problems.append("env.image_size=null: a vision-language model needs pictures")
        trained = value("policy.trained")
        if value("policy.dtype") == "bfloat16" and trained != "head" and rank is None:
            problems.append(
                f"policy.dtype=bfloat16 with policy.trained={trained}: small steps "
                "of the optimizer are lost in bfloat16 weights; keep float32, which "
                "precision=auto computes in bfloat16, train the head alone, or set "
                "policy.lora_rank, whose adapters are float32"
            )
        if rank is not None and trained == "head":
            problems.append(
                f"policy.lora_rank={rank} with policy.trained=head: adapters go into layers that "
                "train; choose policy.trained=language or all"
            )
    if kind == "lerobot" and not (value("policy.pretrained") or value("policy.options")):
        problems.append("policy.pretrained: a policy of LeRobot needs its folder or hub id")
    if kind in ("gr_mg", "seer"):
        problems += _paper_policy_problems(value)
    if kind != "small" and value("policy.head") == "arm_gripper":
        problems.append(f"policy.head=arm_gripper has no effect on policy.kind={kind}")
    if kind == "small" and value("policy.pretrained"):
        problems.append("policy.pretrained has no effect on policy.kind=small")
    if kind in ("small", "transformers") and value("policy.options"):
        problems.append(f"policy.options has no effect on policy.kind={kind}")
    if kind != "transformers":
        problems += [
            f"{key}=true has no effect on policy.kind={kind}"
            for key in ("policy.checkpoint_activations", "policy.compile")
            if value(key)
        ]
    return problems + _lora_problems(value)


def _paper_policy_problems(value: Callable[[str], Any]) -> list[str]:
    """Sizes of GR-MG or Seer that do not fit the run, and weights without their tokenizer."""
    if value("policy.path") is not None:
        return []
    kind, simulator = value("policy.kind"), value("env.kind")
    options = cast(dict[str, Any], OmegaConf.to_container(value("policy.options")))
    tokenizer = options.pop("tokenizer", None)
    problems = []
    if value("env.image_size") is None:
        problems.append(f"env.image_size=null: policy.kind={kind} needs pictures")
    if value("policy.pretrained") and not value("policy.random_weights") and not tokenizer:
        problems.append(
            f"policy.pretrained: the weights of policy.kind={kind} were trained on CLIP's tokens, "
            "give +policy.options.tokenizer=<folder with CLIP's vocab.json and merges.txt>"
        )
    try:
        robot = getattr(simulator_class(simulator), "robot", "pose")
        spec_class(kind).from_dict(
            {"robot": robot, "chunk_size": value("env.chunk_size"), **options}
        )
    except (TypeError, ValueError) as error:
        problems.append(f"policy.kind={kind} with env.kind={simulator}: {error}")
    return problems


def _lora_problems(value: Callable[[str], Any]) -> list[str]:
    """Settings of low-rank adapters that cannot be, or would be passed over."""
    rank, alpha, targets = (
        value(f"policy.{name}") for name in ("lora_rank", "lora_alpha", "lora_targets")
    )
    if rank is None:
        given = {"lora_alpha": alpha is not None, "lora_targets": targets != "all-linear"}
        return [
            f"policy.{name} has no effect without policy.lora_rank"
            for name, is_given in given.items()
            if is_given
        ]
    problems = []
    if targets == "all-linear":
        if value("policy.kind") != "transformers":
            problems.append(
                f"policy.lora_targets=all-linear with policy.kind={value('policy.kind')}: name the "
                "layers, such as [to_q,to_kv]"
            )
    elif isinstance(targets, str) or not targets or not all(isinstance(t, str) for t in targets):
        problems.append(
            f"policy.lora_targets={targets!r}: expected all-linear or a list of layers' names"
        )
    elif any(target.split(".")[-1] == "lm_head" for target in targets):
        problems.append(
            "policy.lora_targets: adapters of lm_head would have no effect, because the action "
            "head reads its weight and does not call it; leave it out"
        )
    return problems


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
