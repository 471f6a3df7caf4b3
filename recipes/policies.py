"""From a configuration to a policy with fresh or pretrained weights, and the spec that is saved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from tensordict.nn import ProbabilisticTensorDictSequential
from torch import nn
from torchrl.envs import EnvBase

from rftf_torchrl import (
    EncoderConfig,
    Episode,
    EpisodeCollector,
    PolicySpec,
    PolicySpecProtocol,
    QueryNetwork,
    RunConfig,
    Split,
    TransformersPolicySpec,
    VisionLanguageEncoder,
    add_lora,
    checkpoint_activations,
    compile_module,
    environment_factory,
    load_policy,
    make_collector,
    make_simulator,
    residual_critic,
    resolve_device,
    small_critic,
    spec_class,
)
from rftf_torchrl.optional import optional_module
from rftf_torchrl.recipes.collect_demos import demos_folder

logger = logging.getLogger("policies")


def policy_spec(config: RunConfig, state_dim: int, action_dim: int) -> PolicySpecProtocol:
    """The description of the run's policy; of a pretrained one, the files are read."""
    settings = config.policy
    simulator = make_simulator(config.env)
    wrist = getattr(simulator, "wrist", False)
    sizes = {"chunk_size": config.env.chunk_size, "action_dim": action_dim}
    heads = {
        "head": settings.head,
        "init_scale": settings.init_scale,
        "learn_scale": settings.learn_scale,
        "flow_steps": settings.flow_steps,
        "flow_level": settings.flow_level,
    }
    if settings.kind == "small":
        encoder = EncoderConfig(
            image_size=config.env.image_size,
            state_dim=state_dim,
            channels=tuple(settings.channels),
            features=settings.features,
            state_features=settings.state_features,
            film=settings.film,
        )
        return PolicySpec(encoder, bins=settings.bins, **heads, **sizes)
    if settings.kind == "transformers":
        return TransformersPolicySpec.from_pretrained(
            settings.pretrained,
            bins=settings.bins,
            decoding=settings.decoding,
            temperature=settings.temperature,
            state_dim=state_dim if settings.use_state else None,
            wrist_image=wrist,
            prompt=settings.prompt,
            prompt_tokens=settings.prompt_tokens,
            image_options=settings.image_options,
            trained=settings.trained,
            dtype=settings.dtype,
            **heads,
            **sizes,
        )
    found: Any = spec_class(settings.kind)
    known = {
        **sizes,
        "state_dim": state_dim,
        "robot": getattr(simulator, "robot", None),
        "wrist": wrist,
    }
    if is_dataclass(found):
        names = {field.name for field in fields(found)}
        known = {name: value for name, value in known.items() if name in names}
    if known.get("robot", "") is None:
        del known["robot"]
    options = {**known, **settings.options}
    if settings.pretrained and hasattr(found, "from_pretrained"):
        return found.from_pretrained(settings.pretrained, **options)
    return found.from_dict(options)


def new_policy(
    config: RunConfig, state_dim: int, action_dim: int
) -> tuple[ProbabilisticTensorDictSequential, PolicySpecProtocol]:
    """The run's policy before it is cloned.

    A spec with a method ``load(source)`` builds the policy with the weights of
    ``policy.pretrained``. Frozen weights that are random get a warning.
    """
    spec: Any = policy_spec(config, state_dim, action_dim)
    settings = config.policy
    if settings.pretrained and not settings.random_weights and hasattr(spec, "load"):
        return spec.load(settings.pretrained), spec
    policy = spec.build()
    frozen = sum(p.numel() for p in policy.parameters() if not p.requires_grad)
    if frozen:
        logger.warning(
            "policy.kind=%s starts from random weights, and %d of them are frozen as they are, "
            "such as those of its encoders: set policy.pretrained, unless this only tries a run",
            settings.kind,
            frozen,
        )
    return policy, spec


def acting_policy(config: RunConfig, file: str | Path) -> tuple[nn.Module, PolicySpecProtocol]:
    """A saved policy where it acts: with workers on the CPU, without them on the run's device."""
    policy, spec = load_policy(file)
    if config.collector.workers == 0:
        policy.to(resolve_device(config.device))
    return policy, spec


def episode_factory(
    config: RunConfig, split: Split, spec: PolicySpecProtocol
) -> Callable[[Episode], EnvBase]:
    """Builds the environment of an episode, with the inputs of the spec's policy."""
    return environment_factory(
        make_simulator(config.env),
        split,
        demos_folder(config),
        spec.observation_transform(),
        potential=config.reward.potential == "environment",
    )


def episode_collector(
    config: RunConfig, split: Split, policy: nn.Module, spec: PolicySpecProtocol
) -> EpisodeCollector:
    """Plays episodes of the run's simulator with the policy."""
    return make_collector(episode_factory(config, split, spec), policy, config.collector)


def vision_language_model(policy: nn.Module) -> QueryNetwork:
    """The network of a policy of the kind ``transformers``, with its ``backbone``.

    Raises:
        ValueError: for another kind of policy.
    """
    found = [module for module in policy.modules() if isinstance(module, QueryNetwork)]
    if not found:
        raise ValueError(
            "policy.kind=transformers, but the policy in policy.path (or in <output>/bc) is not on "
            "a vision-language model: give the word that it was cloned with, such as policy=tokens"
        )
    return found[0]


def add_adapters(config: RunConfig, policy: nn.Module) -> None:
    """Low-rank adapters, where ``policy.lora_rank`` asks for them."""
    settings = config.policy
    if settings.lora_rank is None:
        return
    part, targets = policy, settings.lora_targets
    if settings.kind == "transformers":
        part = vision_language_model(policy).backbone
    if targets == "all-linear":
        head: Any = part.get_output_embeddings()
        targets = [
            name
            for name, layer in part.named_modules()
            if isinstance(layer, nn.Linear) and layer is not head and layer.weight.requires_grad
        ]
    lora = optional_module("peft", "lora").LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        target_modules=targets,
    )
    name = next(name for name, module in policy.named_modules() if module is part)
    add_lora(policy, lora, part=name)


def fit_in_memory(config: RunConfig, policy: nn.Module) -> None:
    """Activation checkpoints and compilation, where the run asks for them."""
    if config.policy.checkpoint_activations:
        checkpoint_activations(vision_language_model(policy).backbone)
    if config.policy.compile:
        compile_module(vision_language_model(policy).trunk)


def build_critic(
    config: RunConfig, policy: nn.Module, spec: PolicySpecProtocol
) -> nn.Module | None:
    """The critic; None where none is learned.

    It starts from the encoder of a small policy. Beside a large one, it is a small network of its
    own on the raw observation.
    """
    if config.critic in ("temporal", "none", "group"):
        return None
    build = residual_critic if config.critic == "residual" else small_critic
    found = [m for m in policy.modules() if isinstance(m, VisionLanguageEncoder)]
    if found:
        critic = build(found[0].config)
        encoder = next(m for m in critic.modules() if isinstance(m, VisionLanguageEncoder))
        encoder.load_state_dict(found[0].state_dict())
        return critic
    state_dim = getattr(spec, "state_dim", None)
    critic = build(
        EncoderConfig(
            image_size=config.env.image_size,
            state_dim=state_dim,
            channels=tuple(config.policy.channels),
        )
    )
    statistics = [m for m in policy.modules() if hasattr(m, "state_mean")]
    if state_dim is not None and statistics:
        encoder = next(m for m in critic.modules() if isinstance(m, VisionLanguageEncoder))
        encoder.set_state_statistics(statistics[0].state_mean, statistics[0].state_std)
    return critic
