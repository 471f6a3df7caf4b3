"""Compare the numbers of two commits bit for bit: the same seeds must give the same.

    python tests/regression/compare_numbers.py --checkout ../before --out before.json
    python tests/regression/compare_numbers.py --checkout . --out after.json --spelling new
    python tests/regression/compare_numbers.py --compare before.json after.json > numbers.md

Keeps every number that tiny jobs log and the SHA-256 of every weight they save. One CALVIN case
plays a recorded trace and needs no simulator; the other is left out where calvin_env is missing.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import pkgutil
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

COMMON = """
demos.per_task=2 demos.held_out_per_task=1 cloning.batch_size=32 value.steps=20 value.clips=8
value.frames=4 value.rollout_episodes=4 ppo.iterations=2 ppo.episodes_per_task=4 ppo.epochs=2
ppo.minibatch=16 ppo.checkpoint_every=1 evaluation.episodes_per_task=4 evaluation.swapped_per_task=2
evaluation.video_episodes=0 logger=csv device=cpu threads=1 collector.workers=0
"""
SCENE = "env.tasks=[window-open,window-close] env.chunk_size=2 env.action_repeat=5"
STATE = f"{COMMON} env=metaworld_state {SCENE} env.horizon=14 cloning.steps=400"
TUNED = f"""
recipes/finetune.py {STATE} demos.path={{start}}/demos
policy.path={{start}}/bc/policy.safetensors value.path={{start}}/value/value.safetensors
"""
HEAD = f"recipes/quickstart.py {STATE} value=ranking reward=rftf"
ROLLOUTS = "value=ranking_rollouts reward=rftf"
CALVIN = f"""
recipes/calvin.py {COMMON} env.chunk_size=5 env.horizon=9 cloning.steps=130 ppo.tasks=null
demos.held_out_per_task=0 demos.chains=2 demos.start_chains=3 evaluation.chains=3
evaluation.steps_per_subtask=45
"""
STUDY = ",".join(f"'{word}'" for word in f"{STATE} logger=none ppo.iterations=20".split())

# Script and overrides of each case; {start} is the folder of the first one.
CASES: dict[str, str] = {
    "quick start, state": f"recipes/quickstart.py {STATE} {ROLLOUTS} ppo.iterations=3 "
    "collector.workers=1",
    "quick start, pixels": f"recipes/quickstart.py {COMMON} {SCENE} env.horizon=14 "
    f"env.image_size=32 cloning.steps=300 value.steps=10 {ROLLOUTS} value.rollout_episodes=2",
    "study cell": "recipes/compare.py study=quick +task_sets.tiny=['ppo.env_steps=5000'] "
    "only_task_sets=[tiny] methods=[rftf_failures] baseline=rftf_failures seeds=[0] workers=0 "
    f"curve_every=2 curve_episodes=2 resamples=100 settings=[{STUDY}]",
    "resumed": f"{TUNED} reward=rftf ppo.iterations=5 ppo.checkpoint_every=3",
    "terminal value kept": f"{TUNED} reward=rftf reward.terminal=keep reward.value_range=[0,1]",
    "temporal critic": f"{TUNED} reward=rftf critic=temporal",
    "no critic": f"{TUNED} critic=none reward=sparse",
    "group": f"{TUNED} critic=group reward=sparse ppo.group_size=2 ppo.episodes_per_task=12 seed=2",
    "tokens": f"{HEAD} policy.head=tokens",
    "flow": f"{HEAD} policy.head=flow",
    "arm and gripper": f"{HEAD} policy.head=arm_gripper",
    "CALVIN, recorded trace": f"{CALVIN} env.tasks=[close_drawer] evaluation.deterministic=false",
    "CALVIN, simulator": f"{CALVIN} demos.per_task=1 env.tasks=[open_drawer,turn_off_lightbulb]",
}

# After the redesign: a part of a command -> what stands for it, as "critic=temporal" -> "...".
NEW_SPELLING: dict[str, str] = {
    "env.action_repeat": "env.options.action_repeat",
    "reward.terminal": "reward.options.terminal",
    "policy.head": "policy.options.head",
    "head=arm_gripper": "head=arm_gripper cloning.gripper_threshold=0",
    "demos.chains": "env.options.demo_chains",
    "demos.start_chains": "env.options.start_chains",
    "evaluation.chains": "env.options.benchmark_chains",
    "evaluation.steps_per_subtask": "env.options.steps_per_subtask",
}
# After the redesign: how a result's file, column or key begins -> how it began before.
NEW_NAMES: dict[str, str] = {}

RESULTS = ("results.json", "value/report.json", "cells/*/*/*.json")
NO_RESULT = re.compile(r"seconds|peak_memory|command|commit|versions|digest|format")
Quantities = dict[str, dict[str, Any]]


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON file by dotted name, without times and versions."""
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        path = f"{name}.{key}".lstrip(".")
        if not NO_RESULT.search(path):
            yield from (
                flat(entry, path) if isinstance(entry, (dict, list)) else [(path, repr(entry))]
            )


def quantities(folder: Path) -> Quantities:
    """All numbers of a run's folder: a dictionary for each row, result and file of weights."""
    found: Quantities = {}
    for file in sorted(folder.rglob("metrics.csv")):
        for number, row in enumerate(csv.DictReader(file.read_text(encoding="utf-8").splitlines())):
            row.pop("digest", None)
            found[f"{file.relative_to(folder)}, row {number}"] = {k: v for k, v in row.items() if v}
    for file in sorted(path for pattern in RESULTS for path in folder.glob(pattern)):
        for key, value in flat(json.loads(file.read_text(encoding="utf-8"))):
            part = f"{file.relative_to(folder)}, {key.partition('.')[0]}"
            found.setdefault(part, {})[key] = value
    for file in sorted(folder.rglob("*.safetensors")):
        found[str(file.relative_to(folder))] = {
            key: hashlib.sha256(f"{w.dtype} {w.shape} ".encode() + w.tobytes()).hexdigest()
            for key, w in load_file(file).items()
        }
    return found


def run(command: list[str], checkout: Path, log: Path) -> None:
    """Run Python in the checkout, whose package it imports."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as file:
        pipes = {"stdout": file, "stderr": file}
        done = subprocess.run([sys.executable, *command], cwd=checkout, env=environment, **pipes)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-4000:]}"
        )


def run_case(name: str, text: str, checkout: Path, work: Path) -> Quantities:
    """Run one case in a folder of its own."""
    folder, log = work / name.replace(", ", "_").replace(" ", "_"), work / "log.txt"
    command = text.replace("{start}", str(work / "quick_start_state")).split()
    command.append(f"output={folder}")
    if name == "CALVIN, recorded trace":
        command = [str(Path(__file__).resolve()), "--play-trace", *command]
    run(command, checkout, log)
    found = quantities(folder)
    if name == "resumed":
        newest = max(folder.glob("*/checkpoints/*"))
        newest.unlink()
        (newest.parents[1] / "policy.safetensors").unlink()
        run([*command, "resume=true"], checkout, log)
        again = quantities(folder)
        found["resumed as without a stop"] = {"equal": again == found}
        found |= {f"resumed: {key}": numbers for key, numbers in again.items()}
    return found


def play_trace(command: list[str]) -> None:
    """Run a recipe with a recorded trace in place of CALVIN's simulator and expert."""
    package = import_module("rftf_torchrl")
    for module in pkgutil.walk_packages(package.__path__, "rftf_torchrl."):
        if "calvin" in module.name or "chain" in module.name:
            import_module(module.name)
    found = {name: value for m in list(sys.modules.values()) for name, value in vars(m).items()}
    task, chain = found["RecordedTask"], found.get("RecordedChain", lambda tasks, steps: tasks)
    trace = dict(np.load(next(Path("tests").rglob("trace_close_drawer.npz"))))
    robot_obs, scene_obs, actions = (trace[key] for key in ("robot_obs", "scene_obs", "actions"))

    class CalvinSimulator:
        """Goes on by a frame where an action points where the recorded one does."""

        def __init__(self, scene: str) -> None:
            self.reset()

        def reset(self, robot: Any = None, scene: Any = None, frame: int = 0) -> None:
            self.frame, self.robot_obs, self.scene_obs = frame, robot_obs[frame], scene_obs[frame]
            self.info = {"drawer": self.scene_obs[1]}

        def step(self, action: np.ndarray) -> None:
            wanted, given = actions[min(self.frame, len(actions) - 1)][:3], action[:3]
            if wanted @ given > 0.9 * np.linalg.norm(wanted) * np.linalg.norm(given):
                self.reset(frame=(self.frame + 1) % len(robot_obs))

        def achieved(self, start_info: dict, tasks: Any) -> set[str]:
            return set(tasks) if abs(self.scene_obs[1] - start_info["drawer"]) > 0.12 else set()

        def close(self) -> None: ...

    def record_chains(jobs: list, **_: float) -> Iterator[list]:
        """Each chain is the trace, with the hand moved a little by the chain's seed."""
        for job in jobs:
            shift = np.random.default_rng(job.seed).normal(scale=[1e-3] * 3 + [0] * 12)
            done = task("close_drawer", 0, job.scene, robot_obs + shift, scene_obs, actions)
            yield chain([done], len(actions))

    fakes = {"CalvinSimulator": CalvinSimulator, "record_chains": record_chains}
    fakes["require_calvin_env"] = Path.cwd  # its result, a folder, is not used
    for module in [m for name, m in sys.modules.items() if name.startswith("rftf_torchrl")]:
        for name in fakes.keys() & vars(module).keys():
            setattr(module, name, fakes[name])
    script = Path(command[0]).resolve()
    sys.argv, sys.path[0] = command, str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


def shown(numbers: dict[str, Any]) -> str:
    """A single number as it is, several as the start of their SHA-256."""
    if len(numbers) < 2:
        return str(*numbers.values())[:20]
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:12]


def without_digests(file: Path) -> str:
    """Without the digests of settings in the names of a study's folders."""
    return re.sub(r"(seed\d+-|values/)[0-9a-f]{8}/", r"\1/", file.read_text(encoding="utf-8"))


def compare(before: Path, after: Path) -> bool:
    """Print the table and what differs; whether all is equal."""
    sides, differences = [json.loads(without_digests(file)) for file in (before, after)], []
    print("| case | quantity | before | after | equal |\n|---|---|---|---|---|")
    for case in CASES:
        first, second = (side.get(case, {}) for side in sides)
        if not first and not second:
            print(f"| {case} | not run | | | |")
        for name in {**first, **second}:
            one, other = first.get(name, {}), second.get(name, {})
            equal = "yes" if one == other else "NO"
            print(f"| {case} | {name} | {shown(one)} | {shown(other)} | {equal} |")
            for key in {**one, **other}:
                if (was := one.get(key, "none")) != (now := other.get(key, "none")):
                    differences.append(f"- {case}, {name}, {key}: {was} before, {now} after")
    print("\n".join(["", *differences]))
    return not differences


def main() -> None:
    if sys.argv[1:2] == ["--play-trace"]:
        return play_trace(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=Path, help="the repository to run")
    parser.add_argument("--out", type=Path, help="file for its numbers")
    parser.add_argument("--spelling", choices=["old", "new"], default="old")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    given = parser.parse_args()
    if given.compare:
        sys.exit(not compare(*given.compare))
    checkout, report = given.checkout.resolve(), {}
    with tempfile.TemporaryDirectory() as work:
        check = "import rftf_torchrl as r, sys; sys.exit(not r.__file__.startswith(sys.argv[1]))"
        run(["-c", check, str(checkout)], checkout, Path(work, "log.txt"))
        for name, text in CASES.items():
            if name not in given.only or ("simulator" in name and not find_spec("calvin_env")):
                continue
            for old, new in NEW_SPELLING.items() if given.spelling == "new" else ():
                text = text.replace(old, new)
            begun = time.perf_counter()
            report[name] = run_case(name, text, checkout, Path(work))
            print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    text = json.dumps(report, indent=1)
    for new, old in NEW_NAMES.items() if given.spelling == "new" else ():
        text = text.replace(f'"{new}', f'"{old}')
    given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
