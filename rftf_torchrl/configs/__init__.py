"""Typed configuration of the recipes."""

from hydra.core.config_store import ConfigStore

from rftf_torchrl.configs.run import start_run
from rftf_torchrl.configs.schema import (
    BalanceConfig,
    CloningConfig,
    CollectorConfig,
    DemosConfig,
    EnvConfig,
    EvaluationConfig,
    LoggerConfig,
    PolicyConfig,
    PPOConfig,
    RewardConfig,
    RunConfig,
    ValueConfig,
)
from rftf_torchrl.configs.validation import ConfigError, check_config

__all__ = [
    "BalanceConfig",
    "CloningConfig",
    "CollectorConfig",
    "ConfigError",
    "DemosConfig",
    "EnvConfig",
    "EvaluationConfig",
    "LoggerConfig",
    "PPOConfig",
    "PolicyConfig",
    "RewardConfig",
    "RunConfig",
    "ValueConfig",
    "check_config",
    "register",
    "start_run",
]


def register() -> None:
    """Make the schema known to Hydra under the name ``run_schema``."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
