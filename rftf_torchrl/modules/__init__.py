"""Policies, critics and the value model."""

from __future__ import annotations

from rftf_torchrl.modules.actors import BoundedScale, gaussian_actor, token_actor
from rftf_torchrl.modules.arm_gripper import ChunkNormalBernoulli, arm_gripper_actor
from rftf_torchrl.modules.calibration import ValueCalibration
from rftf_torchrl.modules.critics import ResidualCritic, residual_critic, small_critic
from rftf_torchrl.modules.distributions import ChunkCategorical, ChunkNormal
from rftf_torchrl.modules.encoders import ImageEncoder, TokenEncoder, random_shift
from rftf_torchrl.modules.feature_cache import FrozenFeatures, cache_bytes, cache_features
from rftf_torchrl.modules.flow import FlowActor, FlowHead, flow_actor
from rftf_torchrl.modules.flow_distribution import ChunkFlow
from rftf_torchrl.modules.flow_networks import ChunkVelocity, FlowNoise
from rftf_torchrl.modules.fusion import EncoderConfig, HeadNetwork, VisionLanguageEncoder
from rftf_torchrl.modules.history import ObservationHistory
from rftf_torchrl.modules.lerobot_actor import lerobot_actor
from rftf_torchrl.modules.lerobot_observation import LeRobotObservation
from rftf_torchrl.modules.lerobot_spec import LeRobotSpec
from rftf_torchrl.modules.lora import (
    LoraReference,
    adapter_state_dict,
    adapters_off,
    add_lora,
    load_adapter_state_dict,
    merge_lora,
)
from rftf_torchrl.modules.policy_file import load_policy, save_policy
from rftf_torchrl.modules.policy_spec import PolicySpec, PolicySpecProtocol, spec_class
from rftf_torchrl.modules.pretrained_config import PretrainedEncoderConfig
from rftf_torchrl.modules.pretrained_network import PretrainedNetwork, VisionLanguageFusion
from rftf_torchrl.modules.score_module import score_module
from rftf_torchrl.modules.small_vla import small_vla
from rftf_torchrl.modules.states import values_of_states
from rftf_torchrl.modules.temporal_value import TemporalValueModel, temporal_value_model
from rftf_torchrl.modules.tower_features import TowerFeatures
from rftf_torchrl.modules.towers import ImageTower, TextTower
from rftf_torchrl.modules.value_features import cache_image_features, on_cached_features

__all__ = [
    "BoundedScale",
    "ChunkCategorical",
    "ChunkFlow",
    "ChunkNormal",
    "ChunkNormalBernoulli",
    "ChunkVelocity",
    "EncoderConfig",
    "FlowActor",
    "FlowHead",
    "FlowNoise",
    "FrozenFeatures",
    "HeadNetwork",
    "ImageEncoder",
    "ImageTower",
    "LeRobotObservation",
    "LeRobotSpec",
    "LoraReference",
    "ObservationHistory",
    "PolicySpec",
    "PolicySpecProtocol",
    "PretrainedEncoderConfig",
    "PretrainedNetwork",
    "ResidualCritic",
    "TemporalValueModel",
    "TextTower",
    "TokenEncoder",
    "TowerFeatures",
    "ValueCalibration",
    "VisionLanguageEncoder",
    "VisionLanguageFusion",
    "adapter_state_dict",
    "adapters_off",
    "add_lora",
    "arm_gripper_actor",
    "cache_bytes",
    "cache_features",
    "cache_image_features",
    "flow_actor",
    "gaussian_actor",
    "lerobot_actor",
    "load_adapter_state_dict",
    "load_policy",
    "merge_lora",
    "on_cached_features",
    "random_shift",
    "residual_critic",
    "save_policy",
    "score_module",
    "small_critic",
    "small_vla",
    "spec_class",
    "temporal_value_model",
    "token_actor",
    "values_of_states",
]
