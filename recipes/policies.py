"""The critic of a run."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchrl.envs import EnvBase

from rftf_torchrl import (
    EncoderConfig,
    Episode,
    EpisodeCollector,
    PolicySpecProtocol,
    RunConfig,
    Split,
    VisionLanguageEncoder,
    environment_factory,
    make_collector,
    make_simulator,
    residual_critic,
    small_critic,
)
from rftf_torchrl.recipes.collect_demos import demos_folder


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
            channels=(16, 32, 32),
        )
    )
    statistics = [m for m in policy.modules() if hasattr(m, "state_mean")]
    if state_dim is not None and statistics:
        encoder = next(m for m in critic.modules() if isinstance(m, VisionLanguageEncoder))
        encoder.set_state_statistics(statistics[0].state_mean, statistics[0].state_std)
    return critic
