"""Kill a recipe at random moments, resume it, and compare with an uninterrupted run.

    python tests/faults/kill_anywhere.py --kills 500

Each trial runs one stage of a tiny run in a process of its own, ends it by SIGKILL after a random
time, runs the stage again with ``resume=true``, and compares every file that a later stage reads:
weights, tables and results bit for bit. Nor may anything be left that the killed process was
writing or had unpacked. Prints a line for each stage and ends with code 1 at a difference.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from safetensors.numpy import load_file
from tqdm import tqdm

from rftf_torchrl import (
    PeakMemory,
    RunConfig,
    check_config,
    load_demonstrations,
    register,
)
from rftf_torchrl.configs.recipe import CONF
from rftf_torchrl.digests import read_record
from rftf_torchrl.recipes.collect_demos import collect
from rftf_torchrl.recipes.finetune import finetune
from rftf_torchrl.recipes.quickstart import quickstart
from rftf_torchrl.recipes.train_bc import clone
from rftf_torchrl.recipes.train_value import train_value

TINY = """
env=metaworld_state env.tasks=[window-open,window-close] env.horizon=6 env.options.action_repeat=8
demos.per_task=2 demos.held_out_per_task=1 cloning.steps=60 cloning.batch_size=32 value.steps=40
value.clips=8 value.frames=4 ppo.iterations=5 ppo.episodes_per_task=2 ppo.epochs=2 ppo.minibatch=8
ppo.checkpoint_every=2 evaluation.episodes_per_task=2 evaluation.swapped_per_task=2
evaluation.video_episodes=1 evaluation.video_size=64 collector.workers=0 logger=csv device=cpu
threads=1
"""
NOT_COMPARED = ("seconds", "peak_memory_gib")


def tiny(output: Path, *overrides: str) -> RunConfig:
    """The settings of a tiny run."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = [*TINY.split(), f"output={output}", *overrides]
        return check_config(compose("config", overrides=given))


def whole(config: RunConfig) -> None:
    """The quick start, from nothing to its report."""
    with PeakMemory() as memory:
        quickstart(config, memory)


STAGES: dict[str, Callable[[RunConfig], object]] = {
    "collect-demos": collect,
    "train-bc": clone,
    "train-value": train_value,
    "finetune": finetune,
    "quickstart": whole,
}


def quietly(stage: str, config: RunConfig) -> None:
    """Run a stage without its bars and messages."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    tempfile.tempdir = str(temporary(config))
    STAGES[stage](config)


def temporary(config: RunConfig) -> Path:
    """The temporary folder of a run's processes."""
    folder = Path(f"{config.output}-temporary")
    folder.mkdir(exist_ok=True)
    return folder


def left(config: RunConfig) -> list[str]:
    """What is hidden in a run's folder, locks aside, or stayed in its temporary folder."""
    hidden = (file for file in config.folder.root.rglob(".*") if file.suffix != ".lock")
    return [file.name for file in (*hidden, *temporary(config).iterdir())]


def run(
    stage: str,
    config: RunConfig,
    seconds: float | None = None,
    target: Callable[[str, RunConfig], None] = quietly,
) -> int | None:
    """Run a stage in a forked process, killed after some time; its exit code."""
    process = multiprocessing.get_context("fork").Process(target=target, args=(stage, config))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    return process.exitcode


def published(config: RunConfig) -> dict[str, object]:
    """What later stages and people read, by name; a hidden file is what a killed write left."""
    folder, found = config.folder, {}
    if folder.demonstrations.exists():
        frames = load_demonstrations(folder.demonstrations).frames
        for key, value in frames.items(include_nested=True, leaves_only=True):
            found[f"demonstrations {key}"] = value.numpy().tobytes()
    for file in sorted(folder.root.rglob("[!.]*.safetensors")):
        for name, value in load_file(file).items():
            found[f"{file.relative_to(folder.root)} {name}"] = value.tobytes()
    for file in sorted(folder.root.rglob("[!.]*.csv")):
        found[str(file.relative_to(folder.root))] = file.read_bytes()
    if (folder.root / "results.json").exists():
        for name, result in read_record(folder.root / "results.json").items():
            if name not in NOT_COMPARED:
                found[f"results {name}"] = result
    return found


def try_stage(stage: str, before: Path, config: RunConfig, kills: int, draw: random.Random) -> int:
    """Kill and resume a stage; the number of trials that ended otherwise than without a kill."""
    begun = time.perf_counter()
    if run(stage, config):
        raise RuntimeError(f"{stage} fails without a kill")
    seconds, expected, wrong = time.perf_counter() - begun, published(config), 0
    for number in tqdm(range(kills), desc=stage):
        trial = replace(config, output=f"{config.output}-{stage}-{number}")
        shutil.copytree(before, trial.output)
        run(stage, trial, draw.uniform(0, 1.1 * seconds))
        code, found = run(stage, replace(trial, resume=True)), published(trial)
        if code or found != expected or left(trial):
            wrong += 1
            names = [n for n in {*found, *expected} if found.get(n) != expected.get(n)]
            print(
                f"{stage}, kill {number}: exit code {code}, differs: {names[:5]}, left: "
                f"{left(trial)[:5]}"
            )
        shutil.rmtree(trial.output)
        shutil.rmtree(temporary(trial))
    print(f"{stage}: {kills} kills over {seconds:.1f} s, {wrong} lost something")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="of all stages together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    given = parser.parse_args()
    wrong, draw = 0, random.Random(given.seed)
    with tempfile.TemporaryDirectory() as work:
        config = tiny(Path(work, "run"))
        for stage in STAGES:
            if stage == "quickstart":  # from nothing, in a folder of its own
                config = replace(config, output=f"{work}/quickstart")
            before = Path(work, f"before-{stage}")
            Path(config.output).mkdir(exist_ok=True)
            shutil.copytree(config.output, before)
            kills = given.kills // len(given.stages) if stage in given.stages else 0
            others = stage != "quickstart" and {*given.stages} != {"quickstart"}
            if kills or others:  # stages before those asked for run once
                wrong += try_stage(stage, before, config, kills, draw)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
