"""What differs between the simulators: environments, tasks, and the pairs that share a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn
from torchrl.envs import EnvBase

from rftf_torchrl import (
    SAME_SCENE,
    CalvinFactory,
    CalvinTask,
    Episode,
    EpisodeCollector,
    MetaWorldFactory,
    PolicyInputFactory,
    PolicySpecProtocol,
    RunConfig,
    StateBank,
    load_sentences,
)
from rftf_torchrl.calvin.tasks import get_task as calvin_task
from rftf_torchrl.metaworld.goals import Split
from rftf_torchrl.metaworld.tasks import Task
from rftf_torchrl.metaworld.tasks import get_task as metaworld_task
from rftf_torchrl.nets.evaluate_states import policy_device


def is_calvin(config: RunConfig) -> bool:
    return config.env.name == "calvin"


def task_of(config: RunConfig, name: str) -> Task | CalvinTask:
    return calvin_task(name) if is_calvin(config) else metaworld_task(name)


def task_names(config: RunConfig, tasks: Sequence[str] | None = None) -> dict[int, str]:
    """Names by number, of some tasks or of all."""
    return {task_of(config, name).id: name for name in tasks or config.env.tasks}


def tuned_tasks(config: RunConfig) -> list[str]:
    """The tasks of which fine-tuning plays episodes."""
    return config.env.tasks if config.ppo.tasks is None else config.ppo.tasks


def same_scene_pairs(config: RunConfig) -> list[tuple[str, str]]:
    """Pairs of the run's tasks that nothing but the sentence tells apart."""
    return [pair for pair in SAME_SCENE if set(pair) <= set(config.env.tasks)]


def states_file(config: RunConfig) -> Path:
    """CALVIN: where fine-tuning starts; the run's own, or else beside the demonstrations."""
    own = Path(config.output, "states.npz")
    if config.demos.path and not own.exists():
        return Path(config.demos.path).parent / own.name
    return own


def environment_factory(
    config: RunConfig, split: Split, spec: PolicySpecProtocol
) -> Callable[[Episode], EnvBase]:
    """Builds the environment of an episode, with the inputs of the spec's policy."""
    factory = raw_environment_factory(config, split)
    transform = spec.observation_transform()
    return factory if transform is None else PolicyInputFactory(factory, transform)


def raw_environment_factory(config: RunConfig, split: Split) -> MetaWorldFactory | CalvinFactory:
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
        wrist_size=env.wrist_size,
        chunk_size=env.chunk_size,
        horizon=env.horizon,
        sentences=load_sentences(env.checkout, "training") if env.checkout else None,
    )


def episode_collector(
    config: RunConfig, split: Split, policy: nn.Module, spec: PolicySpecProtocol
) -> EpisodeCollector:
    """Collects with copies of the policy on the CPU; without workers, with itself on its GPU."""
    on_gpu = policy_device(policy).type == "cuda" and config.collector.workers == 0
    return EpisodeCollector(
        environment_factory(config, split, spec),
        policy,
        workers=config.collector.workers,
        copy_policy=not on_gpu,
        timeout=config.collector.timeout,
        max_restarts=config.collector.max_restarts,
    )
