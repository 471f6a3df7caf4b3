"""What differs between the simulators: environments, tasks, and the pairs that share a scene."""

from __future__ import annotations

from torch import nn

from rftf_torchrl.configs import RunConfig
from rftf_torchrl.envs import EpisodeCollector
from rftf_torchrl.envs.metaworld import SAME_SCENE, MetaWorldFactory, Task, get_task
from rftf_torchrl.envs.metaworld.goals import Split


def task_of(config: RunConfig, name: str) -> Task:
    return get_task(name)


def task_names(config: RunConfig) -> dict[int, str]:
    return {task_of(config, name).id: name for name in config.env.tasks}


def same_scene_pairs(config: RunConfig) -> list[tuple[str, str]]:
    """Pairs of the run's tasks that nothing but the sentence tells apart."""
    return [pair for pair in SAME_SCENE if set(pair) <= set(config.env.tasks)]


def instruction_of(config: RunConfig, name: str) -> str:
    return task_of(config, name).instruction


def environment_factory(config: RunConfig, split: Split) -> MetaWorldFactory:
    env = config.env
    return MetaWorldFactory(split, env.image_size, env.chunk_size, env.action_repeat, env.horizon)


def episode_collector(config: RunConfig, split: Split, policy: nn.Module) -> EpisodeCollector:
    return EpisodeCollector(
        environment_factory(config, split),
        policy,
        workers=config.collector.workers,
        timeout=config.collector.timeout,
        max_restarts=config.collector.max_restarts,
    )
