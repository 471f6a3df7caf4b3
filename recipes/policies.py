"""From a configuration to a policy with fresh or pretrained weights, and the spec that is saved."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from tensordict.nn import ProbabilisticTensorDictSequential
from torch import nn

from rftf_torchrl.configs import RunConfig
from rftf_torchrl.modules import (
    EncoderConfig,
    PolicySpec,
    PolicySpecProtocol,
    load_policy,
    spec_class,
)
from rftf_torchrl.modules.transformers_vla import TransformersPolicySpec
from rftf_torchrl.training import resolve_device


def policy_spec(config: RunConfig, state_dim: int, action_dim: int) -> PolicySpecProtocol:
    """The description of the run's policy; of a pretrained one, the files are read."""
    settings = config.policy
    sizes = {"chunk_size": config.env.chunk_size, "action_dim": action_dim}
    scale = {"init_scale": settings.init_scale, "learn_scale": settings.learn_scale}
    if settings.kind == "small":
        encoder = EncoderConfig(
            image_size=config.env.image_size,
            state_dim=state_dim,
            channels=tuple(settings.channels),
            features=settings.features,
            state_features=settings.state_features,
            film=settings.film,
        )
        return PolicySpec(encoder, head=settings.head, bins=settings.bins, **scale, **sizes)
    if settings.kind == "transformers":
        return TransformersPolicySpec.from_pretrained(
            settings.pretrained,
            head=settings.head,
            bins=settings.bins,
            decoding=settings.decoding,
            temperature=settings.temperature,
            state_dim=state_dim if settings.use_state else None,
            prompt=settings.prompt,
            prompt_tokens=settings.prompt_tokens,
            image_options=settings.image_options,
            trained=settings.trained,
            dtype=settings.dtype,
            **scale,
            **sizes,
        )
    found: Any = spec_class(settings.kind)
    known = {**sizes, "state_dim": state_dim}
    if is_dataclass(found):
        names = {field.name for field in fields(found)}
        known = {name: value for name, value in known.items() if name in names}
    return found.from_dict({**known, **settings.options})


def new_policy(
    config: RunConfig, state_dim: int, action_dim: int
) -> tuple[ProbabilisticTensorDictSequential, PolicySpecProtocol]:
    """The run's policy before it is cloned.

    A spec with a method ``load(source)`` builds the policy with the weights of
    ``policy.pretrained``.
    """
    spec: Any = policy_spec(config, state_dim, action_dim)
    settings = config.policy
    if settings.pretrained and not settings.random_weights and hasattr(spec, "load"):
        return spec.load(settings.pretrained), spec
    return spec.build(), spec


def acting_policy(config: RunConfig, file: str | Path) -> tuple[nn.Module, PolicySpecProtocol]:
    """A saved policy where it acts: with workers on the CPU, without them on the run's device."""
    policy, spec = load_policy(file)
    if config.collector.workers == 0:
        policy.to(resolve_device(config.device))
    return policy, spec
