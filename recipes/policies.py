"""The episodes of a run."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchrl.envs import EnvBase

from rftf_torchrl import (
    Episode,
    EpisodeCollector,
    PolicySpecProtocol,
    RunConfig,
    Split,
    environment_factory,
    make_collector,
    make_simulator,
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
