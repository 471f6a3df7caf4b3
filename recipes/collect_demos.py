"""Record demonstrations of the simulator's scripted expert.

    python recipes/collect_demos.py output=outputs/run demos.per_task=5
    python recipes/collect_demos.py env=calvin_state output=outputs/calvin

Writes ``<output>/demos`` (or ``demos.path``): ``demos.per_task`` successful episodes per task from
training states, to learn from, and ``demos.held_out_per_task`` from test states, to judge the value
model. ``rftf_torchrl.data`` documents the format. CALVIN's expert plays training chains. In
addition to the demonstrations it writes ``calvin/{training,validation}`` in CALVIN's own format,
and ``states.npz``, where fine-tuning starts its episodes.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from rftf_torchrl import (
    ConfigError,
    Episode,
    Recording,
    RunConfig,
    Takeover,
    check_seeds,
    load_demonstrations,
    load_policy,
    make_simulator,
    recipe,
)
from rftf_torchrl.configs.artefacts import whole_demos
from rftf_torchrl.configs.record import refuse_other_environment, refuse_other_recording
from rftf_torchrl.configs.run import stage

logger = logging.getLogger("collect_demos")


def clear_interrupted(folder: Path) -> None:
    """Remove what an interrupted recording left, so that the same is recorded again."""
    if folder.exists() and not load_demonstrations(folder).complete:
        logger.warning("%s is from a recording that stopped early: it is recorded again", folder)
        shutil.rmtree(folder)


def takeover(config: RunConfig) -> Takeover | None:
    """The policy that acts first, if one is asked for.

    Raises:
        FileNotFoundError: where there is no such file.
        ConfigError: where it is of another environment, or has inputs that a recording lacks.
    """
    if config.demos.takeover is None:
        return None
    file = Path(config.demos.takeover)
    if not file.is_file():
        raise FileNotFoundError(f"demos.takeover={file}: there is no such file of a policy")
    refuse_other_environment(config, file, "demos.takeover")
    policy, spec = load_policy(file, kind=config.policy.kind)
    if spec.observation_transform() is not None:
        raise ConfigError(
            f"demos.takeover={file}: a policy of kind {config.policy.kind} makes inputs of its own "
            "from text or history, which a recording does not have: give a small one"
        )
    most = max(1, config.env.horizon // 2)
    return Takeover(policy.eval().requires_grad_(False), config.env.chunk_size, most)


@stage(
    "collect_demos",
    "demonstrations",
    about=lambda config: (
        f"{config.demos.per_task} to learn from and {config.demos.held_out_per_task} held out for "
        f"each of {len(config.env.tasks)} tasks in {config.env.kind}"
    ),
    writes=lambda config: config.folder.demonstrations,
    entitled=refuse_other_recording,
    kept=lambda config: config.demos.path is None,
)
def collect(config: RunConfig) -> int:
    """Record what is missing of the demonstrations, and return the simulator steps used for all."""
    folder, recorded = config.folder.demonstrations, 0
    simulator: Any = make_simulator(config.env)
    if config.resume and config.demos.path is None and hasattr(simulator, "record"):
        clear_interrupted(folder)
    if folder.exists():
        found = whole_demos(config)
        recorded = found.simulator_steps
        logger.info("%s holds %d demonstrations already", folder, len(found.episodes))
    if hasattr(simulator, "record"):
        steps: int = simulator.record(
            Recording(
                folder,
                config.demos.per_task,
                config.demos.held_out_per_task,
                config.tuned_tasks,
                noise=config.demos.noise,
                takeover=takeover(config),
                seed=config.seed,
                workers=config.collector.workers_here,
                timeout=config.collector.timeout,
                max_restarts=config.collector.max_restarts,
            )
        )
        return recorded + steps
    if not folder.exists():
        raise ValueError(
            f"{config.env.kind} has no expert to record, and there is no {folder}: write "
            "demonstrations with rftf_torchrl.DemonstrationWriter, and give their folder as "
            "demos.path=<folder>"
        )
    task = config.env.tasks[0]
    env = simulator.factory("train", folder)(Episode(task, 0))
    check_seeds(env, task)
    env.close()
    return 0


@recipe()
def main(config: RunConfig) -> None:
    logger.info("demonstrations: %s simulator steps for all of them", f"{collect(config):,}")


if __name__ == "__main__":
    main()
