"""Compose the recipes' configuration as a user's shell would."""

import pytest
from _composed import composed

from rftf_torchrl import check_config


@pytest.fixture(scope="session")
def configure():
    """A function from overrides to a checked configuration."""
    return lambda *overrides, name="config": check_config(composed(*overrides, name=name))
