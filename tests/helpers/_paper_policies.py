"""GR-MG and Seer at tiny sizes as policies of a robot arm, and rollouts of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from _arm_env import ArmEnv
from _tiny_vlas import SMALL_GR_MG, SMALL_SEER
from torch import nn
from torchrl.envs import TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import GRMGSpec, SeerSpec

TEXT = replace(SMALL_GR_MG.text, context=12)
SPECS = {
    "gr_mg": GRMGSpec(replace(SMALL_GR_MG, text=TEXT), chunk_size=2),
    "seer": SeerSpec(replace(SMALL_SEER, text=TEXT), chunk_size=2),
}


def build(spec, seed=0):
    torch.manual_seed(seed)
    policy = spec.build()
    for parameter in policy.parameters():  # fresh queries of Seer are zero
        nn.init.normal_(parameter.data, std=0.15) if parameter.ndim > 1 else None
    return policy


def make_env(spec, **arguments):
    arguments = {"chunk": spec.chunk_size, "wrist": spec.wrist, **arguments}
    return TransformedEnv(ArmEnv(**arguments), spec.observation_transform())


def rollout(spec, policy, steps=5, mode=ExplorationType.RANDOM, **arguments):
    with torch.no_grad(), set_exploration_type(mode):
        data = make_env(spec, **arguments).rollout(steps, policy)
    return data.exclude("language_instruction", ("next", "language_instruction"))
