"""The episodes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from torch import nn
from torchrl.envs import EnvBase

from rftf_torchrl import keys
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.envs.collector import EpisodeCollector
from rftf_torchrl.envs.episodes import Episode, EpisodeResult, Split
from rftf_torchrl.envs.simulator import environment_factory, make_collector, make_simulator
from rftf_torchrl.evaluation.report import percent
from rftf_torchrl.policies.spec import PolicySpecProtocol
from rftf_torchrl.training.progress import progress_bar


def episode_factory(
    config: RunConfig, split: Split, spec: PolicySpecProtocol
) -> Callable[[Episode], EnvBase]:
    """Builds the environment of an episode, with the inputs of the spec's policy."""
    return environment_factory(
        make_simulator(config.env),
        split,
        config.folder.demonstrations,
        spec.observation_transform(),
        potential=config.reward.potential == "environment",
    )


def episode_collector(
    config: RunConfig, split: Split, policy: nn.Module, spec: PolicySpecProtocol
) -> EpisodeCollector:
    """Plays episodes of the run's simulator with the policy.

    Raises:
        ValueError: where training has no initial state of one of the run's tasks.
    """
    simulator: Any = make_simulator(config.env)
    if split == "train" and hasattr(simulator, "check_starts"):
        simulator.check_starts(config.folder.demonstrations, config.tuned_tasks)
    return make_collector(episode_factory(config, split, spec), policy, config.collector)


@contextmanager
def counted(number: int, title: str) -> Iterator[Callable[[EpisodeResult], None]]:
    """A bar with the rate of success, and the function that takes each episode as it ends."""
    outcomes = []
    with progress_bar(number, title, unit="episodes") as bar:

        def count(episode: EpisodeResult) -> None:
            ended = episode.trajectory["next"]
            if not ended[keys.CRASHED].any():
                outcomes.append(bool(ended[keys.SUCCESS].any()))
                bar.set_postfix(success=percent(fmean(outcomes)), refresh=False)
            bar.update()

        yield count
