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
from rftf_torchrl.configs.study import MethodConfig, StudyConfig, check_study
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
    "MethodConfig",
    "PPOConfig",
    "PolicyConfig",
    "RewardConfig",
    "RunConfig",
    "StudyConfig",
    "ValueConfig",
    "check_config",
    "check_study",
    "register",
    "start_run",
]


def register() -> None:
    """Make the schemas known to Hydra under the names ``run_schema`` and ``study_schema``."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    ConfigStore.instance().store(name="study_schema", node=StudyConfig)
