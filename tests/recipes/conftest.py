"""What the tests of recipes begin from: a configuration, and a cloned policy with its files."""

import pytest
from _composed import composed
from tiny import TINY

from rftf_torchrl import check_config


@pytest.fixture(scope="session")
def configure():
    """A function from overrides to a checked configuration."""
    return lambda *overrides, name="config": check_config(composed(*overrides, name=name))


@pytest.fixture(scope="session")
def cloned(configure, tmp_path_factory):
    """The configuration of an output folder with demonstrations, policy and value model."""
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(*TINY, f"output={tmp_path_factory.mktemp('run')}")
    steps = collect(config)
    assert steps > 0
    assert collect(config) == steps, "existing demonstrations are kept, and so is what they cost"
    assert clone(config).is_file()
    file, extra_steps = train_value(config)
    assert file.is_file()
    assert extra_steps == 0
    return config
