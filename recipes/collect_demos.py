"""Record demonstrations of the simulator's scripted expert.

    python recipes/collect_demos.py output=outputs/run demos.per_task=5
    python recipes/collect_demos.py env=calvin_state output=outputs/calvin

Writes ``<output>/demos`` (or ``demos.path``): ``demos.per_task`` successful episodes a task from
training states, to learn from, and ``demos.held_out_per_task`` from test states, to judge the value
model. ``rftf_torchrl.data`` documents the format. CALVIN's expert walks training chains: beside the
demonstrations it writes ``calvin/{training,validation}`` in CALVIN's own format, and
``states.npz``, where fine-tuning starts its episodes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rftf_torchrl import (
    Demonstrations,
    Episode,
    Recording,
    RunConfig,
    check_seeds,
    load_demonstrations,
    make_simulator,
    recipe,
)

logger = logging.getLogger("collect_demos")


def demos_folder(config: RunConfig) -> Path:
    return Path(config.demos.path or Path(config.output, "demos"))


def whole_demos(config: RunConfig) -> Demonstrations:
    """The demonstrations of a recording that was not interrupted."""
    found = load_demonstrations(demos_folder(config))
    if not found.complete:
        raise ValueError(
            f"{found.root} holds the {len(found.episodes)} episodes of a recording that stopped "
            "early. Move or remove the folder, and it is recorded anew; or, to use what there is, "
            'write "complete": true in its demonstrations.json'
        )
    return found


def collect(config: RunConfig) -> int:
    """Record what is missing of the demonstrations, and return the simulator steps used."""
    folder = demos_folder(config)
    if folder.exists():
        logger.info("%s has %d episodes already", folder, len(whole_demos(config).episodes))
    simulator: Any = make_simulator(config.env)
    if hasattr(simulator, "record"):
        steps: int = simulator.record(
            Recording(
                folder,
                config.demos.per_task,
                config.demos.held_out_per_task,
                config.tuned_tasks,
                noise=config.demos.noise,
                seed=config.seed,
                workers=config.collector.workers,
            )
        )
        return steps
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
    steps = collect(config)
    logger.info("%d simulator steps; demonstrations in %s", steps, demos_folder(config))


if __name__ == "__main__":
    main()
