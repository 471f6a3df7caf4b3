"""Stop and kill workers and their parents in every state; see who notices, and what is left.

    python tests/faults/stop_anywhere.py --repeat 5
    python tests/faults/stop_anywhere.py --repeat 3 --recipes

A worker that is lost has to be noticed by the pool within its timeout and a second, and closing a
pool has to end. Ten seconds after a parent's death no process may be left. With ``--recipes`` the
recipes are ended too, by Ctrl-C, SIGTERM and SIGKILL, and have to go on with ``resume=true``.
Prints a table and ends with code 1 where a promise was not held.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
sys.path[:0] = [str(HELPERS)]

from echo_player import EchoPlayer  # noqa: E402
from tiny import RECIPES, TINY, tiny_study  # noqa: E402

from rftf_torchrl.envs import workers  # noqa: E402
from rftf_torchrl.envs.guarded_pool import GuardedPool, Lost  # noqa: E402
from rftf_torchrl.envs.workers import Processes  # noqa: E402

MARK = "STOP_ANYWHERE_TRIAL"
TIMEOUT, CLOSE_SECONDS, LEFT_SECONDS, GIVE_UP_SECONDS = 2.0, 6.0, 10.0, 60.0
JOBS = {"looping": "loop", "looping in C": "loop in C", "sending": "send"}
WORKER_STATES = ["starting", "job just sent", "job being sent", *JOBS, "closing"]
PARENT_STATES = ["starting", "idle", *JOBS, "stopped", "forkserver stopped"]


def make_pool(timeout: float = TIMEOUT) -> GuardedPool:
    start = Processes(EchoPlayer, preload="echo_player")
    return GuardedPool(start, 1, timeout=timeout, max_restarts=1)


def until_ready(pool: GuardedPool) -> None:
    while not pool.workers[0].ready:
        list(pool.wait())


def begin(pool: GuardedPool, job: str) -> None:
    """Give the worker a job that does not end, and wait until it is at it."""
    pool.submit(0, job)
    while not list(pool.wait()):
        pass


def lost(pool: GuardedPool) -> float:
    """Seconds until the pool says that the worker is lost."""
    begun = time.monotonic()
    while time.monotonic() - begun < GIVE_UP_SECONDS:
        if any(isinstance(message, Lost) for _, message in pool.wait()):
            return time.monotonic() - begun
    raise TimeoutError("nobody noticed")


def stop_worker(state: str, number: int, pause: float = 0.0) -> tuple[float, float]:
    """Send a signal to a worker in a state.

    Returns:
        Seconds until the pool noticed, and those of closing it.
    """
    patience = workers.START_UP_SECONDS
    pool = make_pool()
    worker = pool.workers[0].process.pid
    try:
        if state == "starting":
            workers.START_UP_SECONDS = TIMEOUT
        else:
            until_ready(pool)
        if state in JOBS:
            begin(pool, JOBS[state])
        time.sleep(pause)
        os.kill(worker, number)
        if state == "job being sent":
            pool.submit(0, "x" * 64_000_000)
        elif state not in JOBS:
            pool.submit(0, "a") if state != "closing" else None
        noticed = 0.0 if state == "closing" else lost(pool)
    finally:
        workers.START_UP_SECONDS = patience
        begun = time.monotonic()
        pool.close()
    return noticed, time.monotonic() - begun


def parent_of(process: int) -> int:
    """The number of a process's parent."""
    status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    return int(status.rpartition(")")[2].split()[1])


def parent_of_toy(state: str) -> None:
    """A parent whose worker is in a state, until it is killed."""
    pool = make_pool(timeout=600.0)
    if state != "starting":
        until_ready(pool)
    if state in JOBS:
        begin(pool, JOBS[state])
    if state == "stopped":
        begin(pool, "send")
        os.kill(pool.workers[0].process.pid or 0, signal.SIGSTOP)
    if state == "forkserver stopped":
        os.kill(parent_of(pool.workers[0].process.pid or 0), signal.SIGSTOP)
    print("there", flush=True)
    try:
        while True:
            list(pool.wait())
    finally:
        pool.close()


def parent_of_collector(state: str) -> None:
    """The real collector, with Meta-World, in the middle of its episodes."""
    import torch
    from tensordict.nn import TensorDictModule

    from rftf_torchrl import Episode, EpisodeCollector, MetaWorldFactory
    from rftf_torchrl.keys import CHUNK, STATE

    factory = MetaWorldFactory("train", chunk_size=2, action_repeat=2, horizon=20)
    policy = TensorDictModule(
        lambda state: torch.zeros(*state.shape[:-1], 2, 4), in_keys=[STATE], out_keys=[CHUNK]
    )
    episodes = [Episode("reach", seed) for seed in range(500)]
    with EpisodeCollector(factory, policy, workers=2) as collector:
        if state == "starting":
            print("there", flush=True)
        collector.collect(episodes, on_episode=lambda _: print("there", flush=True))


def parent_of_server(state: str, engine: str = "process") -> None:
    """The policy's thread and its simulators, in the middle of their episodes."""
    from sleeping import SleepingFactory, sleeping_policy

    from rftf_torchrl import Episode, EpisodeCollector

    episodes = [Episode("sleep", seed) for seed in range(10_000)]
    make_env, policy = SleepingFactory(0.01, 5), sleeping_policy(0.05)
    with EpisodeCollector(make_env, policy, workers=2, engine=engine, serve=True) as collector:
        collector.collect(episodes, on_episode=lambda _: print("there", flush=True))


PARENTS: dict[str, Callable[[str], None]] = {
    "toy": parent_of_toy,
    "collector": parent_of_collector,
    "server": parent_of_server,
    "ray": partial(parent_of_server, engine="ray"),
}


def marked(mark: str) -> list[int]:
    """The processes that come from a trial, whoever their parent is now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def seconds_until_none(mark: str) -> float:
    """Seconds until no process of a trial is left; those that stay are killed and named."""
    begun = time.monotonic()
    while left := marked(mark):
        if time.monotonic() - begun > GIVE_UP_SECONDS:
            for process in left:
                print(process, Path(f"/proc/{process}/cmdline").read_bytes()[:200])
                os.kill(process, signal.SIGKILL)
            return float("inf")
        time.sleep(0.02)
    return time.monotonic() - begun


def start(command: list[str], mark: str, **pipes: object) -> subprocess.Popen[str]:
    environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}
    return subprocess.Popen(command, env=environment, encoding="utf-8", **pipes)  # type: ignore[call-overload]


def end_parent(kind: str, state: str, number: int, pause: float = 0.0) -> float:
    """Send a signal to a parent whose workers are in a state.

    Returns:
        Seconds until no process was left.
    """
    mark = uuid.uuid4().hex
    command = [sys.executable, __file__, "--parent", kind, state]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with start(command, mark, **pipes) as parent:
        assert parent.stdout is not None
        if parent.stdout.readline() != "there\n":
            raise RuntimeError(f"{command} failed")
        time.sleep(pause)
        parent.send_signal(number)
        return seconds_until_none(mark)


def command_of(recipe: str, output: Path) -> list[str]:
    command = [sys.executable, str(RECIPES / f"{recipe}.py")]
    if recipe == "compare":
        return [*command, "study=quick", *tiny_study(output, "methods=[sparse]", "workers=2")]
    settings = [text for text in TINY if not text.startswith("collector.")]
    return [*command, *settings, "collector.workers=2", "threads=1", f"output={output}"]


def run_recipe(command: list[str]) -> int:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        print(command, done.stderr[-1500:])
    return done.returncode


def end_recipe(recipe: str, number: int, before: Path, seconds: float) -> tuple[float, int]:
    """Send a signal to a recipe after a while, and run it again.

    Returns:
        Seconds until no process was left, and the exit code of going on.
    """
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as work:
        output = Path(work, "run")
        shutil.copytree(before, output)
        command = command_of(recipe, output)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with start(command, mark, **quiet) as process:
            time.sleep(seconds)
            process.send_signal(number)
            left = seconds_until_none(mark)
        resume = [] if recipe == "compare" else ["resume=true"]
        return left, run_recipe([*command, *resume])


class Table:
    """Rows of trials, each with its promise."""

    def __init__(self) -> None:
        self.broken = 0
        print("| what | state | signal | trials | slowest, s | at most, s | held |")
        print("|---|---|---|---|---|---|---|", flush=True)

    def add(self, what: str, state: str, number: int, seconds: list[float], limit: float) -> None:
        held = sum(each <= limit for each in seconds)
        self.broken += len(seconds) - held
        name = signal.Signals(number).name
        row = [what, state, name, len(seconds), f"{max(seconds):.2f}", f"{limit:g}", held]
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def try_workers(table: Table, repeat: int, draw: random.Random) -> None:
    for state in WORKER_STATES:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            if (state, number) == ("closing", signal.SIGKILL):
                continue
            trials = [stop_worker(state, number, draw.uniform(0, 0.1)) for _ in range(repeat)]
            if state != "closing":
                noticed = [noticed for noticed, _ in trials]
                table.add("worker, noticed", state, number, noticed, TIMEOUT + 1)
            closed = [closed for _, closed in trials]
            table.add("worker, pool closed", state, number, closed, CLOSE_SECONDS)


def try_parents(table: Table, repeat: int, draw: random.Random) -> None:
    states = {"toy": PARENT_STATES, "collector": ["starting", "playing"], "server": ["playing"]}
    if find_spec("ray"):
        states["ray"] = ["playing"]
    for kind in states:
        for state in states[kind]:
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
                if (state, number) == ("forkserver stopped", signal.SIGINT):
                    continue  # multiprocessing waits for it before the parent ends
                left = [end_parent(kind, state, number, draw.uniform(0, 1)) for _ in range(repeat)]
                table.add(f"parent, {kind}", state, number, left, LEFT_SECONDS)


def try_recipes(table: Table, repeat: int, draw: random.Random) -> None:
    with tempfile.TemporaryDirectory() as work:
        base, empty = Path(work, "base"), Path(work, "empty")
        empty.mkdir()
        base.mkdir()
        for recipe in ("collect_demos", "train_bc", "train_value", "finetune", "quickstart"):
            before = Path(work, recipe)
            shutil.copytree(empty if recipe == "quickstart" else base, before)
            try_recipe(table, recipe, before, repeat, draw)
            if recipe != "quickstart":
                run_recipe(command_of(recipe, base))
        try_recipe(table, "compare", empty, repeat, draw)


def try_recipe(table: Table, recipe: str, before: Path, repeat: int, draw: random.Random) -> None:
    with tempfile.TemporaryDirectory() as work:
        shutil.copytree(before, Path(work, "run"))
        begun = time.monotonic()
        if run_recipe(command_of(recipe, Path(work, "run"))):
            raise RuntimeError(f"{recipe} fails without a signal")
        whole = time.monotonic() - begun
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        trials = [
            end_recipe(recipe, number, before, draw.uniform(0.1, 1.0) * whole)
            for _ in range(repeat)
        ]
        table.add(f"recipe {recipe}", "any", number, [left for left, _ in trials], LEFT_SECONDS)
        table.add(f"recipe {recipe}, resumed: exit code", "any", number, [c for _, c in trials], 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5, help="trials of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipes", action="store_true", help="the recipes, in place of the pools")
    parser.add_argument("--parent", nargs=2, metavar=("KIND", "STATE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.parent:
        # a shell that starts this in the background has Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        kind, state = given.parent
        PARENTS[kind](state)
        return
    table, draw = Table(), random.Random(given.seed)
    if given.recipes:
        try_recipes(table, given.repeat, draw)
    else:
        try_workers(table, given.repeat, draw)
        try_parents(table, given.repeat, draw)
    sys.exit(table.broken > 0)


if __name__ == "__main__":
    main()
