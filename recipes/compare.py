"""Compare methods over task sets and seeds: one resumable study, then its report.

    python recipes/compare.py study=quick
    python recipes/compare.py study=state methods=[bc,sparse,rftf] seeds=[0,1,2]
    python recipes/compare.py study=state report=docs/results/state

A cell is a method on a task set with a seed. Finished cells are files in ``<output>/cells``, and
the same command continues where it was stopped; nothing is run twice. When all cells are there,
the report is written from them alone. Methods and studies: ``conf/compare.yaml``, ``conf/study``.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import hydra
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from rftf_torchrl import (
    ConfigError,
    RunConfig,
    StudyConfig,
    cell_file,
    check_config,
    check_finished_cells,
    check_study,
    load_cells,
    prepare_output,
    progress_bar,
    register,
    simulator_class,
    write_study_report,
    write_text,
)
from rftf_torchrl.configs.recipe import CONF, print_in_any_locale
from rftf_torchrl.evaluation.commits import file_commit
from rftf_torchrl.leftovers import clear_leftovers
from rftf_torchrl.recipes.study_cells import (
    Job,
    make_start,
    make_value,
    run_cell,
    versions,
)

logger = logging.getLogger("compare")


def last_of_each(settings: list[str]) -> list[str]:
    """The settings without those that a later one overrides."""
    return list({setting.lstrip("+").split("=")[0]: setting for setting in settings}.values())


def run_config(
    study: StudyConfig, task_set: str, method: str, folders: Sequence[str] = ()
) -> RunConfig:
    """The configuration of a cell but for its seed, composed as ``finetune.py`` composes it."""
    settings = [
        *study.settings,
        *study.task_sets[task_set],
        *study.catalogue[method].settings,
        f"output={study.output}",
        f"hydra.searchpath=[{','.join(folders)}]",
    ]
    with initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        config = check_config(compose("config", overrides=last_of_each(settings)))
    if hasattr(simulator_class(config.env.kind), "evaluate"):
        raise ConfigError(
            f"compare.py counts success over held-out episodes, and {config.env.kind} has an "
            "evaluation of its own: run quickstart.py for each seed, with baseline=sparse"
        )
    return config


def list_jobs(study: StudyConfig, command: str, folders: Sequence[str] = ()) -> list[Job]:
    """Every cell of the study, all of them checked before the first one runs."""
    commit = file_commit(__file__) or ""
    configs = {
        (task_set, method): run_config(study, task_set, method, folders)
        for task_set in study.task_sets
        for method in study.methods
    }
    return [
        Job(
            Path(study.output),
            task_set,
            method,
            replace(configs[task_set, method], seed=seed),
            study.catalogue[method].finetune,
            study.curve_every,
            study.curve_episodes,
            command,
            commit,
        )
        for seed in study.seeds
        for task_set in study.task_sets
        for method in study.methods
    ]


def start_worker(log: Path) -> None:
    """One thread, and bars and warnings into a file: many processes share the terminal."""
    torch.set_num_threads(1)
    sys.stderr = log.open("a", buffering=1, encoding="utf-8")


def next_step(job: Job) -> tuple[Callable[[Job], object], Path] | None:
    """The next step of a job, and the file that it ends with; None when its cell is there."""
    value = job.with_value
    steps: dict[Callable[[Job], object], Path] = {run_cell: cell_file(job.folder, *job.key)}
    if value is not None:
        steps = {make_value: value.folder.value_model, **steps}
    steps = {make_start: Path(job.shared.output, "start.json"), **steps}
    if steps[run_cell].is_file():
        return None
    return next((step, file) for step, file in steps.items() if not file.is_file())


def run_cells(jobs: list[Job], workers: int, log: Path) -> None:
    """Run what is not there yet: starts, then value models, then the cells that read them.

    Each kind side by side; without workers, one cell after another in this process.

    Raises:
        RuntimeError: when all others have ended, if one failed.
    """
    waiting = [job for job in jobs if next_step(job)]
    if not workers:
        for job in waiting:
            while todo := next_step(job):
                todo[0](job)
        return
    if not waiting:
        return
    context = multiprocessing.get_context("spawn")
    failed = ""
    with (
        ProcessPoolExecutor(workers, context, start_worker, (log,)) as pool,
        progress_bar(len(waiting), "cells") as bar,
    ):
        try:
            for step in (make_start, make_value, run_cell):
                todos = [(job, next_step(job)) for job in waiting]
                ready = {todo[1]: job for job, todo in todos if todo and todo[0] is step}
                running = {pool.submit(step, job): job for job in ready.values()}
                for future in as_completed(running):
                    job, error = running[future], future.exception()
                    if error is not None:
                        where = f"{job.method}, {job.task_set}, seed {job.config.seed}"
                        failed += f"\n  - {step.__name__} of {where}: {error}"
                        logger.error("%s of %s failed: %s", step.__name__, where, error)
                    bar.update(step is run_cell)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if failed:
        raise RuntimeError(f"the study is not complete; run it again after a look at:{failed}")


def compare(study: StudyConfig, command: str = "", folders: Sequence[str] = ()) -> Path:
    """Run the study's missing cells and write its report; ``folders`` hold YAML of the user's."""
    jobs = list_jobs(study, command, folders)
    folder = prepare_output(study.output)
    clear_leftovers(folder)
    digests = {job.key: job.digest for job in jobs}
    check_finished_cells(folder, digests, versions())
    workers = len(os.sched_getaffinity(0)) if study.workers is None else study.workers
    run_cells(jobs, workers, folder / "workers.log")
    return write_study_report(
        load_cells(folder, digests),
        study.report or folder / "report",
        baseline=study.baseline,
        levels=tuple(study.levels),
        labels={name: study.catalogue[name].label for name in study.methods},
        title=study.title,
        resamples=study.resamples,
    )


def main() -> None:
    print_in_any_locale()
    register()
    register("study_schema", StudyConfig)
    composed()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="compare")
def composed(raw: DictConfig) -> None:
    study = check_study(raw)
    folder = prepare_output(study.output)
    write_text(folder / "compare.yaml", OmegaConf.to_yaml(raw, resolve=True))
    typed = HydraConfig.get().overrides.task
    typed = [text for text in typed if not text.startswith(("output=", "report=", "workers="))]
    sources = HydraConfig.get().runtime.config_sources
    folders = [source.path for source in sources if source.provider == "command-line"]
    GlobalHydra.instance().clear()  # compare composes the configurations of the cells
    report = compare(study, " ".join(["python recipes/compare.py", *typed]), folders)
    logger.info("report: %s", report)


if __name__ == "__main__":
    main()
