"""Demonstrations for the recipes of vision-language models."""

import pytest
from _vla_settings import LONG, VLA


@pytest.fixture(scope="session")
def demos(configure, tmp_path_factory):
    from rftf_torchrl.recipes.collect_demos import collect

    config = configure(*VLA, LONG, f"output={tmp_path_factory.mktemp('demos')}")
    assert collect(config) > 0
    return f"demos.path={config.output}/demos"
