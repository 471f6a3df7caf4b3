"""Compose the recipes' configuration and import the recipes as a user's shell would."""

import sys

import pytest
from hydra import compose, initialize_config_dir
from tiny import RECIPES

from rftf_torchrl import StudyConfig, check_config, register


@pytest.fixture(scope="session", autouse=True)
def recipes_on_path():
    sys.path.insert(0, str(RECIPES))
    register()
    register("study_schema", StudyConfig)
    yield
    sys.path.remove(str(RECIPES))


@pytest.fixture(scope="session")
def configure():
    """A function from overrides to a checked configuration."""

    def configured(*overrides, name="config"):
        with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
            return check_config(compose(name, overrides=list(overrides)))

    return configured
