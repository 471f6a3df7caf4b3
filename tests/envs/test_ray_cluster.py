"""Ray clusters of two nodes, and the recipe on a cluster of its own."""

import re
import shutil
import signal
import subprocess
import sys

import collect_anywhere as faults
import pytest
from _ray import ray
from kill_anywhere import TINY, published, tiny
from tiny import RECIPES

assert ray, "or all of this is skipped"
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_lost_node_costs_its_episodes_and_nothing_else():
    """One of three simulators is left, and plays the rest; a node that stops is tried by hand."""
    _, lines, same = faults.lose_node(True, "middle", signal.SIGKILL)
    assert same
    for line in lines:
        assert re.match(r"a simulator process (died on [\d.]+, process \d+|hung for 2 s); ", line)


def recipe(name, *words):
    command = [sys.executable, str(RECIPES / f"{name}.py"), *TINY.split(), *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.metaworld
def test_fine_tuning_ends_with_the_bits_of_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    run = tmp_path / "run"
    for stage in ("collect_demos", "train_bc", "train_value"):
        recipe(stage, f"output={run}")
    found = []
    for engine in ("process", "ray"):
        trial = tmp_path / engine
        shutil.copytree(run, trial)
        words = ["ppo.iterations=2", "collector.workers=2", f"collector.engine={engine}"]
        recipe("finetune", f"output={trial}", *words)
        found.append(published(tiny(trial)))
    assert found[0] == found[1]
