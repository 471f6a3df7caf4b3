"""Find settings on the command line that no dataclass has, and name the nearest that there is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

logger = logging.getLogger(__name__)

MOVED = {
    "env.name": "env.kind",
    "env.action_repeat": "env.options.action_repeat",
    "env.wrist_size": "env.options.wrist_size",
    "env.scene": "env.options.scene",
    "env.checkout": "env.options.checkout",
    "demos.chains": "env.options.demo_chains",
    "demos.scenes": "env.options.demo_scenes",
    "demos.held_out_chains": "env.options.held_out_chains",
    "demos.start_chains": "env.options.start_chains",
    "evaluation.chains": "env.options.benchmark_chains",
    "evaluation.steps_per_subtask": "env.options.steps_per_subtask",
    "reward.terminal": "reward.options.terminal",
    **{
        f"value.{name}": f"value.options.{name}"
        for name in ("channels", "image_tower", "tower_training", "fusion", "grid")
    },
    **{
        f"policy.{name}": f"policy.options.{name}"
        for name in (
            *("head", "channels", "features", "state_features", "film", "init_scale"),
            *("learn_scale", "bins", "flow_steps", "flow_level", "decoding", "temperature"),
            *("use_state", "prompt", "prompt_tokens", "image_options", "trained", "dtype"),
        )
    },
}
"""Settings of one kind that stood among those of all kinds before version 0.2."""

SHORT = {"data": "data.path"}
"""Groups without YAML files whose name stands for their main setting."""


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """The command line with full and new names of settings; one that has moved gets a warning.

    Example:
        >>> with_new_names(["+env.scene=D", "seed=1", "data=videos"])
        ['env.options.scene=D', 'seed=1', 'data.path=videos']
    """
    found = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in SHORT:
            argument = f"{SHORT[name]}={value}"
        new = MOVED.get(name.lstrip("+"))
        if new is not None:
            logger.warning("%s is now %s", name.lstrip("+"), new)
            argument = f"{new}{equals}{value}"
        found.append(argument)
    return found


def unknown_settings(arguments: Sequence[str], schema: type, groups: Sequence[str]) -> list[str]:
    """List what is wrong with the names of settings, before Hydra composes anything.

    Hydra would advise ``+typo=3`` for a name that it does not know, and then accept it.

    Args:
        arguments: the command line; what begins with a dash is passed over.
        schema: the dataclass of the configuration.
        groups: names of the config groups.

    Returns:
        One line for each unknown or unreadable setting.

    Example:
        >>> from rftf_torchrl import RunConfig
        >>> unknown_settings(["ppo.iteratons=3"], RunConfig, ["env"])
        ["ppo.iteratons: there is no such setting, did you mean 'ppo.iterations'?"]
    """
    names, open_names = setting_names(schema)
    problems = []
    parser = OverridesParser.create()
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            continue
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            problems.append(
                f"{argument}: Hydra can't read it ({error}); put double quotes around words with "
                "'=', ',' or spaces, and single quotes around all of it for the shell"
            )
            continue
        name = override.key_or_group
        if name in names or name in groups or any(name.startswith(f"{o}.") for o in open_names):
            continue
        if name.startswith("hydra"):
            continue
        group, _, last = name.partition(".")
        near = get_close_matches(name, [*names, *groups], n=1)
        if near:
            hint = f", did you mean {near[0]!r}?"
        elif f"{group}.options" in open_names:
            hint = f"; if it belongs to one kind, it is '{group}.options.{last}'"
        else:
            hint = "; --help lists all"
        problems.append(f"{name}: there is no such setting{hint}")
    return problems


def setting_names(schema: type, prefix: str = "") -> tuple[list[str], list[str]]:
    """The full names of all settings, and of those that are mappings with names of their own."""
    names: list[str] = []
    open_names: list[str] = []
    hints: dict[str, Any] = get_type_hints(schema)
    for field in fields(schema):
        name, kind = f"{prefix}{field.name}", hints[field.name]
        names.append(name)
        if isinstance(kind, type) and is_dataclass(kind):
            inner, inner_open = setting_names(kind, f"{name}.")
            names += inner
            open_names += inner_open
        elif getattr(kind, "__origin__", None) is dict:
            open_names.append(name)
    return names, open_names
