"""Kill each writer of files at random moments, let it go on, and compare every byte.

    python tests/faults/kill_writers.py --kills 500

A child that is forked from this process, which has imported everything already, writes small files
of one kind and little else. It is ended by SIGKILL a random time after it began, up to as long as
it takes. Then another child does what is missing, as a resumed run does, and all files have to be
those that a child writes which nobody kills, byte for byte, hidden ones included. Only kills that
came while the child was writing are counted. Prints a line for each writer, with the kills that
left what has to go, and ends with code 1 at a difference.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
import torch
from corrupt_anywhere import ENCODER, components
from tqdm import tqdm

from rftf_torchrl import (
    CalvinWriter,
    Cell,
    ChainResult,
    CurvePoint,
    MetricsFile,
    PolicySpec,
    RunCheckpoints,
    load_policy,
    save_cell,
    save_policy,
    temporal_value_model,
    write_synthetic_demonstrations,
)
from rftf_torchrl.calvin.chains.results import ChainFile
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.leftovers import clear_leftovers
from rftf_torchrl.rows_file import RowsFile
from rftf_torchrl.study.cell import cell_file, load_cell
from rftf_torchrl.values.temporal_value import TemporalValueModel

EPISODES, STOP = 8, 3


def demonstrations(folder: Path) -> None:
    for seed in range(3):
        if not (folder / f"demos{seed}").exists():
            write_synthetic_demonstrations(folder / f"demos{seed}", seed=seed)


def calvin(folder: Path, stop: int = EPISODES) -> None:
    split = folder / "calvin" / "training"
    if split.exists() and not (split / "interrupted.txt").exists():
        return
    action = np.array([0.5, 0, 0, 0, 0, 0, 1.0])
    with CalvinWriter(folder / "calvin", scene="D", resume=True) as writer:
        for episode in range(writer.progress.get("episodes", 0), EPISODES):
            if episode == stop:
                raise KeyboardInterrupt
            for step in range(6):
                robot = np.full(15, (episode + step) / 16)
                last = writer.add_frame(robot, np.zeros(24), action, action)
            writer.annotate(last - 5, last + 1, "open_drawer", "pull the drawer open")
            writer.mark(episodes=episode + 1)


def calvin_interrupted(folder: Path) -> None:
    """What Ctrl-C leaves, from which a recording goes on."""
    try:
        calvin(folder, STOP)
    except KeyboardInterrupt:
        return


def policies(folder: Path) -> None:
    spec = PolicySpec(ENCODER, 2, 4)
    for seed in range(5):
        file = folder / f"policy{seed}.safetensors"
        torch.manual_seed(seed)
        if file.exists():
            load_policy(file)
        else:
            save_policy(spec.build(), spec, file, made_by={"seed": seed})


def value_models(folder: Path) -> None:
    for seed in range(5):
        file = folder / f"value{seed}.safetensors"
        torch.manual_seed(seed)
        if file.exists():
            TemporalValueModel.load(file)
        else:
            temporal_value_model(ENCODER).save(file, made_by={"seed": seed})


def checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    made = components()
    saved = RunCheckpoints(folder / "checkpoints", **made)
    done = saved.load() if saved.files() else 0
    saved.clear()
    for step in range(done + 1, 5):
        made["optimizer"].zero_grad()
        made["model"](torch.rand(4)).sum().backward()
        made["optimizer"].step()
        made["progress"]["steps"] = step
        saved.save(step)


def metrics(folder: Path) -> None:
    table = MetricsFile(folder / "metrics.csv")
    if table.ended:
        return
    first = int(table.rows[-1]["step"]) if table.rows else 0
    for step in range(first, 30):
        table.write(step, {"loss": 1 / (step + 1)})
        if step % 7 == 3:
            table.write(step, {f"success/{step % 3}": 0.5})
    table.end()


def chains(folder: Path) -> None:
    file = ChainFile(folder / "chains.jsonl", {"seed": 0})
    for number in range(40):
        if number not in file.results:
            file.add(ChainResult(number, ("open_drawer",), (51 + number,), 1))


def cells(folder: Path) -> None:
    for seed in range(15):
        file = cell_file(folder, "tiny", "rftf", seed)
        if file.exists():
            load_cell(file)
            continue
        curve, states = (CurvePoint(100, (0.5,)),), {"training": 4, "evaluation": 2, "shared": 0}
        cell = Cell("tiny", "rftf", seed, ("a",), "0", {}, curve, {"a": (True, False)}, 0, states)
        save_cell(folder, cell)


def records(folder: Path) -> None:
    for number in range(15):
        file = folder / f"ended{number}.json"
        if file.exists():
            read_record(file)
        else:
            write_record(file, {"env_steps": number})


def rows(folder: Path) -> None:
    kept = RowsFile(folder / "image")
    for number in range(len(kept.records), 30):
        kept.append(bytes([number]) * 999, {"number": number})


WRITERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None] | None]] = {
    "demonstrations": (demonstrations, None),
    "CALVIN recording": (calvin, None),
    "CALVIN recording that goes on": (calvin, calvin_interrupted),
    "policy": (policies, None),
    "value model": (value_models, None),
    "checkpoints": (checkpoints, None),
    "metrics": (metrics, None),
    "chains": (chains, None),
    "cells of a study": (cells, None),
    "results": (records, None),
    "decoded frames and features": (rows, None),
}


def in_child(
    write: Callable[[Path], None], folder: Path, seconds: float | None = None
) -> tuple[int | None, float]:
    """Write in a forked child, killed so long after it began; its exit code and its time."""
    fork = multiprocessing.get_context("fork")
    told, tell = fork.Pipe(duplex=False)
    process = fork.Process(target=quietly, args=(write, folder, tell))
    process.start()
    told.recv()
    begun = time.perf_counter()
    if not told.poll(seconds):
        os.kill(process.pid or 0, signal.SIGKILL)
    took = time.perf_counter() - begun
    process.join()
    return process.exitcode, took


def quietly(write: Callable[[Path], None], folder: Path, tell: Connection) -> None:
    """Say that it begins, write, and say that it has ended."""
    tempfile.tempdir = f"{folder}-temporary"
    Path(tempfile.tempdir).mkdir(exist_ok=True)
    with Path(f"{folder}-temporary.log").open("w", encoding="utf-8") as sys.stderr:
        tell.send(None)
        try:
            clear_leftovers(folder)
            write(folder)
        finally:
            tell.send(None)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, and of the temporary one of its processes."""
    places = (folder, Path(f"{folder}-temporary"))
    files = [f for place in places for f in sorted(place.rglob("*")) if f.is_file()]
    return {str(file).removeprefix(str(folder)): file.read_bytes() for file in files}


def kill_writer(name: str, kills: int, draw: random.Random, work: Path) -> int:
    """Kill a writer so often; the number of times that something was lost or left."""
    write, prepare = WRITERS[name]
    before, whole = work / "before", work / "whole"
    before.mkdir(parents=True)
    if prepare:
        prepare(before)
    seconds = []
    for _ in range(5):
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(before, whole)
        code, took = in_child(write, whole)
        if code:
            raise RuntimeError(f"{name} fails without a kill")
        seconds.append(took)
    longest, expected, wrong, half, done = 1.25 * median(seconds), content(whole), 0, 0, 0
    with tqdm(total=kills, desc=name, disable=None) as bar:
        while done < kills:
            folder = work / "trial"
            shutil.copytree(before, folder)
            if in_child(write, folder, draw.uniform(0, longest))[0] == -signal.SIGKILL:
                done += 1
                bar.update()
                half += not content(folder).keys() <= expected.keys()
                code, found = in_child(write, folder)[0], content(folder)
                if code or found != expected:
                    wrong += 1
                    differs = [n for n in {*found, *expected} if found.get(n) != expected.get(n)]
                    log = Path(f"{folder}-temporary.log").read_text(encoding="utf-8")
                    print(f"{name}, kill {done}: exit code {code}, differs: {differs[:5]}\n{log}")
            shutil.rmtree(folder)
            shutil.rmtree(f"{folder}-temporary", ignore_errors=True)
    print(
        f"{name}: {kills} kills over {median(seconds):.3f} s, {half} left what has to go, "
        f"{wrong} lost something",
        flush=True,
    )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="of each writer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=list(WRITERS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # a child that copies no counters begins sooner
    wrong = 0
    for name in given.writers:
        with tempfile.TemporaryDirectory() as work:
            draw = random.Random(f"{given.seed} {name}")
            wrong += kill_writer(name, given.kills, draw, Path(work, "files"))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
