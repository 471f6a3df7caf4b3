"""Every setting is fed values that it cannot have, and each is refused before anything runs."""

import math

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rftf_torchrl import ConfigError, RunConfig, check_config
from rftf_torchrl.configs.typos import setting_names

BAD = [math.nan, math.inf, -math.inf, -1, -0.5, "no such word", ["a", "a"], {"a": 1}]
# Any text, number or list may be right for these; what they say is checked where it is used.
FREE = {
    *("demos.path", "demos.takeover", "policy.path", "value.path", "output", "policy.pretrained"),
    *("data.cache", "watch.source", "watch.instruction"),
    *("policy.lora_targets", "value.options", "reward.options", "policy.options", "env.options"),
}
DEFAULTS = OmegaConf.structured(RunConfig)
NAMES = [
    name
    for name in setting_names(RunConfig)[0]
    if name not in FREE and not OmegaConf.is_dict(OmegaConf.select(DEFAULTS, name))
]


@pytest.fixture(scope="module")
def good():
    config = OmegaConf.structured(RunConfig(output="outputs/run"))
    config.env.tasks = ["window-open", "window-close"]
    check_config(config)
    return config


def test_there_are_settings_to_feed():
    assert len(NAMES) > 60


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if i % 8 else name for i, name in enumerate(NAMES)],
)
def test_a_value_that_a_setting_cannot_have_is_refused(good, name):
    let = []
    for value in BAD:
        config = good.copy()
        try:
            OmegaConf.update(config, name, value)
            check_config(config)
        except (ConfigError, OmegaConfBaseException):
            continue
        let.append(value)
    assert let == [] or isinstance(OmegaConf.select(good, name), bool)
