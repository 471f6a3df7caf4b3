"""Who may write a stage of a run, and under which settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.validation import check_config
from rftf_torchrl.files import prepare_output, write_text
from rftf_torchrl.training.owner import own_folder
from rftf_torchrl.training.processes import is_first
from rftf_torchrl.training.progress import duration
from rftf_torchrl.training.run_log import run_log

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Stage = Callable[Concatenate[RunConfig, Arguments], Result]


def start_run(raw: DictConfig) -> RunConfig:
    """Check what Hydra composed, and set the number of threads.

    Args:
        raw: the composed configuration.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: listing every setting that is missing or out of its range.

    Example:
        >>> raw = OmegaConf.structured(RunConfig(output="outputs/run"))
        >>> raw.env.tasks = ["drawer-open"]
        >>> start_run(raw).env.tasks
        ['drawer-open']
    """
    config = check_config(raw)
    if config.threads:
        torch.set_num_threads(config.threads)
    return config


@contextmanager
def announced(title: str, about: str, result: object) -> Iterator[None]:
    """Log what is about to be done and where it goes, then how long it took.

    Args:
        title: what it is, in a word or two.
        about: what it does, with its main numbers.
        result: the file or folder that it writes.
    """
    logger.info("%s: %s; writes %s", title, about, result)
    begun = time.perf_counter()
    yield
    logger.info("%s: done in %s, see %s", title, duration(time.perf_counter() - begun), result)


def stage(
    recipe: str,
    title: str,
    about: Callable[[RunConfig], str],
    writes: Callable[[RunConfig], object],
    *,
    name: Callable[[RunConfig], str] | None = None,
    entitled: Callable[[RunConfig], None] | None = None,
    kept: Callable[[RunConfig], bool] = lambda config: True,
) -> Callable[[Stage[Arguments, Result]], Stage[Arguments, Result]]:
    """Let a function own the stage of the run that it writes, and keep the settings there.

    The settings go to ``<output>/<recipe>.yaml`` once the run is entitled to write: a run that is
    refused changes nothing. The stage's beginning and end are logged, and what is logged meanwhile
    goes to ``<output>/log.txt`` too. Of several processes the first one does all this.

    Args:
        recipe: the recipe that the function is the work of.
        title: what it is, in a word or two.
        about: what it does, with its main numbers.
        writes: the file or folder that it writes.
        name: the stage's name; by default the recipe's.
        entitled: raises where an earlier run's files have to stay as they are.
        kept: whether the settings are kept, as they describe what lies in the output folder.
    """

    def decorate(work: Stage[Arguments, Result]) -> Stage[Arguments, Result]:
        @wraps(work)
        def staged(
            config: RunConfig, /, *args: Arguments.args, **kwargs: Arguments.kwargs
        ) -> Result:
            if not is_first():
                return work(config, *args, **kwargs)
            folder = prepare_output(config.output)
            with own_folder(folder, recipe if name is None else name(config)):
                if entitled is not None:
                    entitled(config)
                if kept(config):
                    settings = OmegaConf.to_yaml(OmegaConf.structured(config))
                    write_text(Path(folder, f"{recipe}.yaml"), settings)
                with run_log(folder), announced(title, about(config), writes(config)):
                    return work(config, *args, **kwargs)

        return staged

    return decorate
