"""A run's policy: its spec and fresh or pretrained weights, its adapters, and where it acts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tensordict.nn import ProbabilisticTensorDictSequential
from torch import nn

from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.envs.simulator import make_simulator
from rftf_torchrl.nets.lora import add_lora
from rftf_torchrl.optional import optional_module
from rftf_torchrl.policies.file import load_policy
from rftf_torchrl.policies.settings import Sizes
from rftf_torchrl.policies.spec import PolicySpecProtocol, policy_spec
from rftf_torchrl.policies.transformers_vla.query_network import QueryNetwork
from rftf_torchrl.training.activations import checkpoint_activations
from rftf_torchrl.training.compilation import compile_module
from rftf_torchrl.training.device import resolve_device

logger = logging.getLogger("policies")


def run_sizes(config: RunConfig, state_dim: int = 0, action_dim: int = 0) -> Sizes:
    """What a run tells the spec of its policy of the environment."""
    env, simulator = config.env, make_simulator(config.env)
    return Sizes(
        chunk_size=env.chunk_size,
        image_size=env.image_size,
        wrist=getattr(simulator, "wrist", False),
        robot=env.kind,
        state_dim=state_dim,
        action_dim=action_dim,
        objects=getattr(simulator, "objects", ()),
    )


def new_policy(
    config: RunConfig, state_dim: int, action_dim: int
) -> tuple[ProbabilisticTensorDictSequential, PolicySpecProtocol]:
    """The run's policy before it is cloned, and its spec.

    A spec with a method ``load(source)`` builds the policy with the weights of
    ``policy.pretrained``. Frozen weights that are random get a warning.

    Args:
        config: the run's.
        state_dim: features of the demonstrations' state.
        action_dim: size of their actions.

    Returns:
        Policy and spec.
    """
    settings = config.policy
    spec: Any = policy_spec(settings, run_sizes(config, state_dim, action_dim))
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
    """A saved policy where it acts: a served one on the run's device, copies on the CPU."""
    policy, spec = load_policy(file, kind=config.policy.kind)
    if config.collector.policy == "server":
        policy.to(resolve_device(config.device))
    return policy, spec


def vision_language_model(policy: nn.Module) -> QueryNetwork:
    """The network of a policy on a vision-language model, with its ``backbone``.

    Raises:
        ValueError: for another policy.
    """
    found = [module for module in policy.modules() if isinstance(module, QueryNetwork)]
    if not found:
        raise ValueError(
            "policy.kind=transformers, but the policy in policy.path (or in <output>/bc) is not on "
            "a vision-language model: give the word that it was cloned with, such as policy=tokens"
        )
    return found[0]


def add_adapters(config: RunConfig, policy: nn.Module) -> None:
    """Add low-rank adapters, where ``policy.lora_rank`` asks for them."""
    settings = config.policy
    if settings.lora_rank is None:
        return
    part: Any = policy
    targets = settings.lora_targets
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
