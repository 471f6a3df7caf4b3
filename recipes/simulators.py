"""What differs between the simulators: environments, tasks, and the pairs that share a scene."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from rftf_torchrl.configs import RunConfig
from rftf_torchrl.envs import EpisodeCollector
from rftf_torchrl.envs.calvin import CalvinFactory, CalvinTask, StateBank, load_sentences
from rftf_torchrl.envs.calvin import get_task as calvin_task
from rftf_torchrl.envs.metaworld import SAME_SCENE, MetaWorldFactory, Task
from rftf_torchrl.envs.metaworld import get_task as metaworld_task
from rftf_torchrl.envs.metaworld.goals import Split


def is_calvin(config: RunConfig) -> bool:
    return config.env.name == "calvin"


def task_of(config: RunConfig, name: str) -> Task | CalvinTask:
    return calvin_task(name) if is_calvin(config) else metaworld_task(name)


def task_names(config: RunConfig) -> dict[int, str]:
    return {task_of(config, name).id: name for name in config.env.tasks}


def same_scene_pairs(config: RunConfig) -> list[tuple[str, str]]:
    """Pairs of the run's tasks that nothing but the sentence tells apart."""
    return [pair for pair in SAME_SCENE if set(pair) <= set(config.env.tasks)]


def states_file(config: RunConfig) -> Path:
    """CALVIN: where fine-tuning starts its episodes."""
    return Path(config.output, "states.npz")


def environment_factory(config: RunConfig, split: Split) -> MetaWorldFactory | CalvinFactory:
    env = config.env
    if not is_calvin(config):
        return MetaWorldFactory(
            split,
            env.image_size,
            env.chunk_size,
            env.action_repeat,
            env.horizon,
            potential=config.reward.potential == "environment",
        )
    return CalvinFactory(
        split,
        scene=env.scene,
        states=StateBank.load(states_file(config)).draw if split == "train" else None,
        image_size=env.image_size,
        chunk_size=env.chunk_size,
        horizon=env.horizon,
        sentences=load_sentences(env.checkout, "training") if env.checkout else None,
    )


def episode_collector(config: RunConfig, split: Split, policy: nn.Module) -> EpisodeCollector:
    return EpisodeCollector(
        environment_factory(config, split),
        policy,
        workers=config.collector.workers,
        timeout=config.collector.timeout,
        max_restarts=config.collector.max_restarts,
    )
