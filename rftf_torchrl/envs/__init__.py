"""Simulators as TorchRL environments, and processes that run lists of episodes in them."""

from rftf_torchrl.envs.calvin import CalvinEnv
from rftf_torchrl.envs.collector import EpisodeCollector, TooManyCrashesError
from rftf_torchrl.envs.episodes import Episode, EpisodeResult, run_episodes
from rftf_torchrl.envs.metaworld import MetaWorldEnv
from rftf_torchrl.envs.policy_inputs import PolicyInputEnv, PolicyInputFactory

__all__ = [
    "CalvinEnv",
    "Episode",
    "EpisodeCollector",
    "EpisodeResult",
    "MetaWorldEnv",
    "PolicyInputEnv",
    "PolicyInputFactory",
    "TooManyCrashesError",
    "run_episodes",
]
