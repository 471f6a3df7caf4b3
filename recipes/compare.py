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
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rftf_torchrl import (
    ConfigError,
    RunConfig,
    StudyConfig,
    cell_file,
    check_config,
    check_finished_cells,
    check_study,
    load_cells,
    own_folder,
    prepare_output,
    progress_bar,
    recipe,
    register,
    simulator_class,
    write_study_report,
    write_text,
)
from rftf_torchrl.configs.recipe import CONF
from rftf_torchrl.configs.run import announced
from rftf_torchrl.cores import usable_cores
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost
from rftf_torchrl.envs.one_thread import one_thread
from rftf_torchrl.envs.workers import Processes
from rftf_torchrl.errors import UserError
from rftf_torchrl.evaluation.commits import file_commit
from rftf_torchrl.recipes.study_cells import (
    Job,
    check_starts,
    make_start,
    make_value,
    run_cell,
    versions,
)
from rftf_torchrl.study.config import SIGN_OF_LIFE
from rftf_torchrl.training.run_log import run_log

logger = logging.getLogger("compare")


def last_of_each(settings: list[str]) -> list[str]:
    """The settings without those that a later one overrides."""
    return list({setting.lstrip("+").split("=")[0]: setting for setting in settings}.values())


def quoted(text: str) -> str:
    """As a value that Hydra takes as it is."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def run_config(
    study: StudyConfig, task_set: str, method: str, folders: Sequence[str] = ()
) -> RunConfig:
    """The configuration of a cell but for its seed, composed as ``finetune.py`` composes it."""
    given = [
        *study.settings,
        *study.task_sets[task_set],
        *study.catalogue[method].settings,
    ]
    taken = [
        setting
        for setting in given
        if setting.lstrip("+").split("=")[0] in ("seed", "output", "resume", "baseline")
    ]
    if taken:
        raise ConfigError(
            f"{', '.join(taken)}: a study gives each cell its own seed and folder, and goes on by "
            "itself: leave it out of settings, task_sets and the catalogue"
        )
    settings = [
        *given,
        f"output={quoted(study.output)}",
        f"hydra.searchpath=[{','.join(map(quoted, folders))}]",
    ]
    with initialize_config_dir(str(CONF.absolute()), version_base="1.3"):
        config = check_config(compose("config", overrides=last_of_each(settings)))
    simulator = simulator_class(config.env.kind)
    if hasattr(simulator, "evaluate") and not getattr(simulator, "evaluates_test_split", False):
        raise ConfigError(
            f"compare.py counts success over held-out episodes, and {config.env.kind} has an "
            "evaluation of its own: run quickstart.py for each seed, with baseline=sparse"
        )
    if config.collector.engine != "process":
        raise ConfigError(
            f"collector.engine={config.collector.engine}: a study plays its cells in processes of "
            "this machine: leave it out, and choose how many by workers=..."
        )
    asked = max(config.evaluation.episodes_per_task, study.curve_episodes)
    if asked > (there := getattr(simulator, "test_states", asked)):
        raise ConfigError(
            f"{config.env.kind} has {there} held-out initial states of each task, and the study "
            f"asks for {asked}: lower evaluation.episodes_per_task or curve_episodes"
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
    if study.workers != 0:  # a cell's process starts no others
        for key, config in configs.items():
            alone = replace(config.collector, workers=0, policy="copy")
            configs[key] = replace(config, collector=alone)
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


class CellPlayer:
    """Does steps of cells in a worker process, and logs into a file, which all of them share."""

    def __init__(self, log: Path) -> None:
        sys.stderr = log.open("a", buffering=1, encoding="utf-8")
        name = multiprocessing.current_process().name
        logging.getLogger("torchrl").setLevel(logging.WARNING)
        logging.basicConfig(level=logging.INFO, format=f"{name}: %(message)s", stream=sys.stderr)

    def play(
        self, job: tuple[Callable[[Job], object], Job], send: Callable[[str | None], None]
    ) -> None:
        """Sends signs of life, then what went wrong, or an empty string."""
        step, cell = job
        ended, problem = threading.Event(), ""
        signs = threading.Thread(target=self._live, args=(ended, send), daemon=True)
        signs.start()
        try:
            step(cell)
        except Exception as error:
            logger.exception("%s of %s failed", step.__name__, cell.key)
            problem = str(error) or type(error).__name__
        ended.set()
        signs.join()
        send(problem)

    @staticmethod
    def _live(ended: threading.Event, send: Callable[[str | None], None]) -> None:
        while not ended.wait(SIGN_OF_LIFE):
            send(None)

    def close(self) -> None:
        """Nothing is held from one step to the next."""


STEPS = ("what all methods share", "the value model", "the cell")


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


def run_cells(jobs: list[Job], workers: int, log: Path, timeout: float) -> None:
    """Run what is not there yet: starts, then value models, then the cells that read them.

    Each kind side by side; without workers, one cell after another in this process.

    Raises:
        UserError: when all others have ended, if one failed.
    """
    waiting = [job for job in jobs if next_step(job)]
    if not workers:
        with one_thread():
            for job in waiting:
                while todo := next_step(job):
                    todo[0](job)
        return
    if not waiting:
        return
    failed = ""
    pool = GuardedPool(
        Processes(partial(CellPlayer, log), preload="rftf_torchrl.recipes.study_cells"),
        min(workers, len(waiting)),
        timeout=timeout,
        max_restarts=len(waiting),
    )
    with closing(pool), progress_bar(len(waiting), "study", unit="cells") as bar:
        for step, words in zip((make_start, make_value, run_cell), STEPS, strict=True):
            todos = [(job, next_step(job)) for job in waiting]
            ready = {todo[1]: job for job, todo in todos if todo and todo[0] is step}
            tasks = {file: (step, job) for file, job in ready.items()}
            for file, found in pool.play(tasks, attempts=1):
                error = f"its process {found.why}" if isinstance(found, Lost) else found
                job = ready[file]
                where = f"{job.method}, {job.task_set}, seed {job.config.seed}"
                if not error:
                    logger.info("%s of %s is done", words, where)
                else:
                    failed += f"\n  - {step.__name__} of {where}: {error}"
                    logger.error("%s of %s failed: %s", step.__name__, where, error)
                bar.update(step is run_cell)
    if failed:
        raise UserError(f"the study is not complete; run it again after a look at:{failed}")


def compare(study: StudyConfig, command: str = "", folders: Sequence[str] = ()) -> Path:
    """Run the study's missing cells and write its report; ``folders`` hold YAML of the user's."""
    jobs = list_jobs(study, command, folders)
    folder = prepare_output(study.output)
    digests = {job.key: job.digest for job in jobs}
    check_finished_cells(folder, digests, versions())
    check_starts(jobs)
    workers = usable_cores() if study.workers is None else study.workers
    methods, seeds = len(study.methods), len(study.seeds)
    about = (
        f"{len(jobs)} cells of {methods} methods, {len(study.task_sets)} task sets and {seeds} "
        f"seeds, {sum(next_step(job) is None for job in jobs)} of them there already, "
        f"{workers or 1} at a time"
    )
    report = Path(study.report or folder / "report")
    with own_folder(folder, "compare"), run_log(folder), announced("study", about, report):
        write_text(folder / "compare.yaml", OmegaConf.to_yaml(OmegaConf.structured(study)))
        run_cells(jobs, workers, folder / "workers.log", study.timeout)
        return write_study_report(
            load_cells(folder, digests),
            report,
            baseline=study.baseline,
            levels=tuple(study.levels),
            labels={name: study.catalogue[name].label for name in study.methods},
            title=study.title,
            resamples=study.resamples,
        )


def forget_command() -> list[str]:
    """Has Hydra compose the cells' configurations next; the folders of ``--config-dir``."""
    sources = HydraConfig.get().runtime.config_sources
    folders = [source.path for source in sources if source.provider == "command-line"]
    GlobalHydra.instance().clear()
    return folders


@recipe("compare", StudyConfig, check_study)
def command(study: StudyConfig) -> None:
    places = ("output=", "report=", "workers=")
    typed = [text for text in sys.argv[1:] if not text.startswith(places)]
    compare(study, f"python recipes/compare.py {shlex.join(typed)}".rstrip(), forget_command())


def main() -> None:
    register("study_schema", StudyConfig)
    command()


if __name__ == "__main__":
    main()
