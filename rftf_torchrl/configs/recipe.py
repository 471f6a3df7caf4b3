"""From the command line to a recipe's function: compose the YAML files, check, run."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import hydra
import torch.distributed as dist
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rftf_torchrl.configs.describe import help_lines
from rftf_torchrl.configs.run import start_run
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.typos import unknown_settings, with_new_names
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.errors import UserError
from rftf_torchrl.training.processes import is_first, started_processes

logger = logging.getLogger(__name__)

RECIPES = (Path(__file__).parents[1] / "recipes").resolve()
CONF = RECIPES / "conf"
VERBOSE = "-v"
MENDABLE = (ValueError, OSError, ImportError, FloatingPointError, UserError)


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
    schema: type = RunConfig,
    check: Callable[[DictConfig], Any] = start_run,
    several: bool = False,
) -> Callable[[Callable[[Any], object]], Callable[[], None]]:
    """Make a function of a checked configuration the main function of a recipe.

    The configuration is composed from the YAML files in ``recipes/conf`` (or ``--config-dir``) and
    the command line, and checked.

    Args:
        config_name: the YAML file that is composed unless ``--config-name`` names another.
        schema: the dataclass of the configuration.
        check: makes one of what was composed, or raises :class:`ConfigError`.
        several: whether torchrun may start it on several processes, of which the first one prints.

    Example:
        >>> @recipe("quickstart")
        ... def main(config: RunConfig) -> None:
        ...     print(config.seed)
    """

    def decorate(run: Callable[[Any], object]) -> Callable[[], None]:
        name = Path(run.__code__.co_filename).stem
        verbose = False

        @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
        @wraps(run)
        def composed(raw: DictConfig) -> None:
            warnings.showwarning = log_warning  # type: ignore[assignment]
            with user_errors(name, verbose):
                run(check(raw))

        def main() -> None:
            nonlocal verbose
            end_in_order()
            if not is_first():
                logging.disable(logging.WARNING)
            print_in_any_locale()
            # Run as a script, the file's neighbours would shadow packages of their names.
            sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != RECIPES]
            verbose = VERBOSE in sys.argv
            sys.argv[1:] = with_new_names([text for text in sys.argv[1:] if text != VERBOSE])
            if {"--help", "-h"} & set(sys.argv):
                print(help_text(name, run, schema))
                return
            with user_errors(name, verbose):
                if not several:
                    refuse_several(name)
                refuse_unknown_settings(sys.argv[1:], schema)
                register()
                os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # its errors are shown here
                composed()

        return main

    return decorate


def end_in_order() -> None:
    """Let SIGTERM end this process as Ctrl-C does, and be tidied up after; a second kills.

    Schedulers and containers send it before they kill.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def print_in_any_locale() -> None:
    """Show a character that the terminal's encoding lacks as its number, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def log_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """A warning as a line like all others, without the place in the code."""
    logger.warning("%s: %s", category.__name__, message)


def help_text(name: str, run: Callable[[Any], object], schema: type) -> str:
    """What a recipe does, its config groups, and every setting with its range and meaning."""
    groups = [
        f"  {group}={'|'.join(sorted(file.stem for file in (CONF / group).glob('*.yaml')))}"
        for group in sorted(words_of(schema))
    ]
    described = (sys.modules[run.__module__].__doc__ or name).strip()
    values = f"to see the values that YAML files set: rftf {name.replace('_', '-')} --cfg job"
    head = [described, "", "config groups, as group=choice:", *groups, "", values]
    return "\n".join([*head, *help_lines(schema)])


def words_of(schema: type) -> list[str]:
    """The config groups of a recipe: those of a run, or ``study`` alone."""
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    return sorted(groups - {"study"} if schema is RunConfig else groups & {"study"})


def refuse_unknown_settings(arguments: Sequence[str], schema: type) -> None:
    """Stop at a name on the command line that no setting has."""
    problems = unknown_settings(arguments, schema, words_of(schema))
    if problems:
        raise ConfigError("the command can't be run:\n  - " + "\n  - ".join(problems))


def refuse_several(name: str) -> None:
    """Stop where torchrun has started a recipe of one process on several."""
    started = started_processes()
    if started > 1:
        raise UserError(
            f"torchrun has started {started} processes, and {name} runs in one: start it without "
            "torchrun. What runs on several is finetune"
        )


@contextmanager
def user_errors(name: str, verbose: bool) -> Iterator[None]:
    """Show an error that a user can fix as one message without traceback; exit with code 2.

    What is wrong before processes are joined is wrong in all of a machine: its first one says it.
    """
    try:
        yield
    except KeyboardInterrupt:
        if verbose:
            raise
        print(f"{name}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    except (*MENDABLE, HydraException, OmegaConfBaseException) as error:
        if started_processes() > 1 and dist.get_node_local_rank() and not dist.is_initialized():
            sys.exit(2)
        if verbose:
            raise
        said = f"{name}: {explained(error)}\n({VERBOSE} shows where it was raised.)"
        print(said, file=sys.stderr)
        sys.exit(2)


def explained(error: Exception) -> str:
    """What is wrong, with the reason that Hydra's own message leaves out."""
    message = str(error).partition("\nConfig search path:")[0].strip()
    cause = error.__cause__
    reason = str(cause).partition("\n")[0] if isinstance(cause, OmegaConfBaseException) else ""
    return message if reason in message else f"{message}: {reason}"
