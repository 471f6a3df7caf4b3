"""Environments, episodes, and processes that run lists of episodes."""

from rftf_torchrl.former import former_names

__getattr__ = former_names(__name__)
