"""From the command line to a recipe's function: compose the YAML files, check, run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from io import TextIOWrapper
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.configs.describe import help_lines
from rftf_torchrl.configs.run import start_run
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.typos import unknown_settings, with_new_names
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.training.owner import FolderInUseError

RECIPES = (Path(__file__).parents[1] / "recipes").resolve()
CONF = RECIPES / "conf"
VERBOSE = "-v"


def register(name: str = "run_schema", schema: type = RunConfig) -> None:
    """Make a schema known to Hydra, so that YAML files can name it among their defaults.

    A group's ``options`` take any name: whose they are checks them.
    """
    node = OmegaConf.structured(schema)
    groups = [node[group] for group in node if not OmegaConf.is_missing(node, group)]
    for group in groups:
        if isinstance(group, DictConfig) and "options" in group:
            OmegaConf.set_struct(group.options, False)
    ConfigStore.instance().store(name=name, node=node)


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
        verbose = False

        @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
        @wraps(run)
        def composed(raw: DictConfig) -> None:
            with user_errors(name, verbose):
                run(start_run(raw))

        def main() -> None:
            nonlocal verbose
            print_in_any_locale()
            # Run as a script, the file's neighbours would shadow packages of their names.
            sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != RECIPES]
            verbose = VERBOSE in sys.argv
            sys.argv[1:] = with_new_names([text for text in sys.argv[1:] if text != VERBOSE])
            if {"--help", "-h"} & set(sys.argv):
                print(help_text(name, run))
                return
            with user_errors(name, verbose):
                refuse_unknown_settings(sys.argv[1:])
            register()
            composed()

        return main

    return decorate


def print_in_any_locale() -> None:
    """Show a character that the terminal's encoding lacks as its number, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def help_text(name: str, run: Callable[[RunConfig], object]) -> str:
    """What a recipe does, its config groups, and every setting with its range."""
    groups = sorted(
        folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "study"
    )
    words = [f"  {g.name}={'|'.join(sorted(f.stem for f in g.glob('*.yaml')))}" for g in groups]
    described = (sys.modules[run.__module__].__doc__ or name).strip()
    options = "options of a kind (env.options, policy.options, ...): docs/how-to/configuration"
    return "\n".join([described, "", "words, as group=word:", *words, *help_lines(), "", options])


def refuse_unknown_settings(arguments: Sequence[str]) -> None:
    """Stop at a name on the command line that no setting has."""
    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
    problems = unknown_settings(arguments, RunConfig, groups)
    if problems:
        raise ConfigError("the command can't be run:\n  - " + "\n  - ".join(problems))


@contextmanager
def user_errors(name: str, verbose: bool) -> Iterator[None]:
    """Show what a user can mend as one message, without a traceback, and exit with code 2."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError, FolderInUseError) as error:
        if verbose:
            raise
        print(f"{name}: {error}\n({VERBOSE} shows where it was raised.)", file=sys.stderr)
        sys.exit(2)
