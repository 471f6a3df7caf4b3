"""The other recipes end to end with tiny settings."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from _pages import check_page
from tiny import RECIPES, TINY

from rftf_torchrl import (
    load_demonstrations,
)

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


def test_the_expert_takes_over_from_the_policy(cloned, tmp_path):
    """In demonstrations of Meta-World; those to judge by stay the expert's alone."""
    from rftf_torchrl.recipes.collect_demos import collect

    policy = str(cloned.folder.policy)
    led = replace(cloned.demos, takeover=policy, per_task=4, held_out_per_task=1)
    env = replace(cloned.env, horizon=2 * cloned.env.horizon)
    config = replace(cloned, output=str(tmp_path), demos=led, env=env)
    steps = collect(config)
    demos = load_demonstrations(config.folder.demonstrations)
    train = [episode.takeover for episode in demos.episodes if episode.split == "train"]
    assert 0 < sum(decisions > 0 for decisions in train) < len(train)
    assert not any(episode.takeover for episode in demos.episodes if episode.split == "test")
    alone = len(demos.frames) - len(demos.episodes)
    led_by_policy = sum(train) * config.env.chunk_size
    assert steps >= (alone + led_by_policy) * demos.action_repeat


def test_evaluate(cloned, tmp_path):
    from rftf_torchrl.recipes.evaluate import entitled, evaluate

    results = evaluate(cloned)
    assert results["success"]["pooled"]["trials"] == 4
    assert results["language"]["tasks"].keys() == {"window-open", "window-close"}
    with open(f"{cloned.output}/evaluation/results.json", encoding="utf-8") as file:
        written = json.load(file)["success"]
    assert written["episodes"] == results["success"]["episodes"]
    assert (results["seed"], results["deterministic"]) == (cloned.seed, True)
    other = shutil.copy(cloned.folder.policy, tmp_path / "other.safetensors")
    with pytest.raises(FileExistsError, match=r"results\.json is of .* and would be overwritten"):
        evaluate(replace(cloned, policy=replace(cloned.policy, path=str(other))))
    shutil.copytree(cloned.output, tmp_path / "copied")
    entitled(replace(cloned, output=str(tmp_path / "copied")))  # its own policy's results


@pytest.mark.parametrize("policy", ["tokens", "arm_gripper"])
def test_other_heads(configure, tmp_path, policy):
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.finetune import finetune
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    gripper = "cloning.gripper_threshold=0"  # Meta-World's is an effort
    config = configure(*TINY, f"policy={policy}", gripper, f"output={tmp_path}")
    collect(config)
    clone(config)
    train_value(config)
    assert finetune(config)["env_steps"] > 0


def test_quick_start_from_pixels_as_a_command(tmp_path):
    overrides = [o for o in TINY if not o.startswith(("env.image_size", "collector.workers"))]
    command = [
        sys.executable,
        str(RECIPES / "quickstart.py"),
        *overrides,
        "collector.workers=1",
        "baseline=sparse",
        "threads=1",
        f"output={tmp_path}/out",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["success"].keys() == {"cloned", "RFTF", "sparse"}
    pictures = ("learning_curve.png", "success.png", "value_over_time_cloned.png")
    for name in ("report.md", *pictures, "value_over_time_RFTF.png"):
        assert (out / name).stat().st_size > 500
    assert len(list((out / "videos").glob("*.mp4"))) == 1
    check_page((out / "report.md").read_text(encoding="utf-8"), out)

    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, encoding="utf-8"
    )
    assert again.returncode != 0
    assert "continue it with resume=true" in again.stderr
    resumed = subprocess.run(
        [*command, "resume=true"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        encoding="utf-8",
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    second = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert second["success"]["RFTF"]["episodes"] == results["success"]["RFTF"]["episodes"]
