"""Compose the recipes' configuration as a user's shell would, in less time."""

from functools import cache

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from tiny import RECIPES

from rftf_torchrl import StudyConfig, register

CONF = RECIPES / "conf"


@cache
def _known_schemas():
    register()
    register("study_schema", StudyConfig)


def by_hydra(*overrides, name="config"):
    _known_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


_of_words = cache(by_hydra)


def composed(*overrides, name="config"):
    """What ``by_hydra`` gives; YAML files of the same words are read and merged once."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    words = [each for each in parsed if (CONF / each.key_or_group).is_dir()]
    config = _of_words(*(word.input_line for word in words), name=name).copy()
    ConfigLoaderImpl._apply_overrides_to_config([p for p in parsed if p not in words], config)
    return config
