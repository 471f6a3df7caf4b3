"""From the command line to a recipe's function: compose the YAML files, check, run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from rftf_torchrl.configs.run import start_run
from rftf_torchrl.configs.schema import RunConfig

RECIPES = (Path(__file__).parents[1] / "recipes").resolve()
CONF = RECIPES / "conf"


_MOVED = {
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
}
"""Settings of one simulator that stood among those of all."""


def moved_settings(typed: Sequence[str]) -> list[str]:
    """What to type in place of settings that have moved, a line each."""
    names = [text.lstrip("+~").partition("=")[0] for text in typed]
    return [f"{name} is now {_MOVED[name]}" for name in names if name in _MOVED]


def register(name: str = "run_schema", schema: type = RunConfig) -> None:
    """Make a schema known to Hydra, so that YAML files can name it among their defaults."""
    ConfigStore.instance().store(name=name, node=schema)


def recipe(
    config_name: str = "config",
) -> Callable[[Callable[[RunConfig], object]], Callable[[], None]]:
    """Make a function of a checked configuration the main function of a recipe.

    The configuration is composed from the YAML files in ``recipes/conf`` (or ``--config-dir``) and
    the command line, checked, and kept as ``<output>/<recipe>.yaml``.

    Args:
        config_name: the YAML file that is composed unless ``--config-name`` names another.

    Example:
        >>> @recipe("quickstart")
        ... def main(config: RunConfig) -> None:
        ...     print(config.seed)
    """

    def decorate(run: Callable[[RunConfig], object]) -> Callable[[], None]:
        name = Path(run.__code__.co_filename).stem

        @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
        @wraps(run)
        def composed(raw: DictConfig) -> None:
            run(start_run(raw, name))

        def main() -> None:
            # Run as a script, the file's neighbours would shadow packages of their names.
            sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != RECIPES]
            moved = moved_settings(sys.argv[1:])
            if moved:
                sys.exit("\n".join(moved))
            register()
            composed()

        return main

    return decorate
