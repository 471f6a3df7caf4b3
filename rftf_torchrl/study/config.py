"""What a study can be told: methods, task sets, seeds."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from pydantic import AfterValidator, Field

from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.settings import (
    Count,
    Fraction,
    Names,
    NotNegativeInt,
    Seed,
    different,
    setting_problems,
)

SIGN_OF_LIFE = 1.0
"""Seconds from one sign of life of a cell's process to the next."""


@dataclass
class MethodConfig:
    """A method: the settings of its runs in addition to those of all runs of a study.

    Attributes:
        label: what reports call it.
        settings: words and settings of ``finetune.py`` and ``train_value.py``.
        finetune: false evaluates the cloned policy and trains nothing.
    """

    label: str = MISSING
    settings: list[str] = field(default_factory=list)
    finetune: bool = True


@dataclass
class StudyConfig:
    """A study: every method on every task set with every seed.

    Attributes:
        catalogue: known methods by name.
        methods: names of the methods to run.
        task_sets: config group choices and settings of each task set, by name. ``ppo.env_steps``
            among them is the budget; rollouts outside fine-tuning are subtracted from it.
        only_task_sets: names of the task sets to run; null for all.
        seeds: seeds of the runs.
        settings: config group choices and settings of all runs.
        baseline: method that the others are compared with.
        curve_every: number of iterations between points of the learning curve.
        curve_episodes: number of held-out episodes per task for each point.
        levels: levels of success; the report says after how many steps they are reached.
        resamples: number of resamples of the bootstrap.
        workers: number of cells that run at the same time, one thread each; null for the number of
            cores, 0 to run them in the main process.
        timeout: a cell's process that shows no sign of life for this many seconds counts as hung. A
            cell shows one every second, however long it takes.
        output: folder of the cells and of everything that they need.
        report: folder of the report; null for ``report`` in the output folder.
        title: title of the report.
    """

    catalogue: dict[str, MethodConfig] = MISSING
    methods: Names = MISSING
    task_sets: Annotated[dict[str, list[str]], Field(min_length=1)] = MISSING
    only_task_sets: list[str] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(different)] = MISSING
    settings: list[str] = field(default_factory=list)
    baseline: str = "sparse"
    curve_every: Count = 5
    curve_episodes: Count = 20
    levels: list[Fraction] = field(default_factory=list)
    resamples: Annotated[int, Field(ge=100, strict=True)] = 2000
    workers: NotNegativeInt | None = None
    timeout: Annotated[float, Field(gt=SIGN_OF_LIFE, allow_inf_nan=False, strict=True)] = 300.0
    output: str = MISSING
    report: str | None = None
    title: str = "Study"


def check_study(config: DictConfig) -> StudyConfig:
    """Turn a composed configuration into a :class:`StudyConfig`.

    Raises:
        ConfigError: listing every setting that is missing or out of its range.

    Example:
        >>> from omegaconf import OmegaConf
        >>> study = StudyConfig({"sparse": MethodConfig("sparse PPO")}, ["sparse"])
        >>> study.task_sets, study.seeds, study.output = {"one": []}, [0], "outputs/study"
        >>> check_study(OmegaConf.structured(study)).methods
        ['sparse']
    """
    if "catalogue" not in config:
        _raise(["the settings are those of a run, not of a study: leave out --config-name"])
    problems = [f"{key} is not set" for key in sorted(OmegaConf.missing_keys(config))]
    if problems:
        _raise(problems)
    given = cast(dict[str, Any], OmegaConf.to_container(config))
    problems = setting_problems(StudyConfig, given)
    study = cast(StudyConfig, OmegaConf.to_object(config))
    known = ", ".join(study.catalogue)
    problems += [
        f"methods: unknown method {name!r}, choose from {known}"
        for name in study.methods
        if name not in study.catalogue
    ]
    chosen = list(study.task_sets) if study.only_task_sets is None else study.only_task_sets
    problems += [
        f"only_task_sets: unknown task set {name!r}, choose from {', '.join(study.task_sets)}"
        for name in chosen
        if name not in study.task_sets
    ]
    if study.baseline not in study.methods:
        problems.append(f"baseline={study.baseline!r}: expected one of the methods of the study")
    problems += [
        f"task_sets: the name {name!r} can't be a folder's"
        for name in study.task_sets
        if not name or name.startswith(".") or os.sep in name
    ]
    if problems:
        _raise(problems)
    study.task_sets = {name: study.task_sets[name] for name in chosen}
    return study


def _raise(problems: list[str]) -> None:
    raise ConfigError("the study can't be run:\n  - " + "\n  - ".join(problems))
