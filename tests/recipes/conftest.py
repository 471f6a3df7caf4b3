"""Compose the recipes' configuration as a user's shell would."""

import pytest
from hydra import compose, initialize_config_dir
from tiny import RECIPES

from rftf_torchrl import StudyConfig, check_config, register


@pytest.fixture(scope="session", autouse=True)
def known_schemas():
    register()
    register("study_schema", StudyConfig)


@pytest.fixture(scope="session")
def configure():
    """A function from overrides to a checked configuration."""

    def configured(*overrides, name="config"):
        with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
            return check_config(compose(name, overrides=list(overrides)))

    return configured
