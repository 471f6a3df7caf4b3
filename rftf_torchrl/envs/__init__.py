"""Simulators as TorchRL environments."""

from rftf_torchrl.envs.metaworld import MetaWorldEnv

__all__ = ["MetaWorldEnv"]
