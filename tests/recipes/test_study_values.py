"""The study of value models: its terms by hand, and the whole of it on a tiny set."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _composed import composed
from tensordict import TensorDict
from tiny import TINY

from rftf_torchrl import (
    ConfigError,
    check_study,
)
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.study.cell import CellError


def test_only_tasks_with_three_of_each_count():
    from rftf_torchrl.recipes.study_values import area

    def row(auc, won, lost):
        return {"final_auc": auc, "successes": won, "failures": lost}

    assert area({"a": row(0.5, 3, 9), "b": row(1.0, 27, 3), "c": row(0.0, 28, 2)}) == 0.75
    assert area({"c": row(0.0, 2, 28)}) != area({"c": row(0.0, 2, 28)}), "NaN"


def test_the_interval_is_cut_to_what_an_area_can_be():
    from rftf_torchrl.recipes.study_values import shown, student

    # Student's quantile of two degrees of freedom is 4.303, the standard error 0.1.
    scores = torch.tensor([0.5, float("nan"), 0.5 + 0.3**0.5 * 0.1, 0.5 - 0.3**0.5 * 0.1])
    found = student(scores)
    error = 0.1 * 0.3**0.5 / 3**0.5
    assert found.estimate == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5 + 4.3027 * error, abs=1e-4)
    assert (student(torch.tensor([0.1, 0.9])).low, student(torch.tensor([0.2, 0.9])).high) == (0, 1)
    assert shown(student(torch.tensor([0.5, float("nan")]))) == "0.500 (–)"
    assert student(torch.tensor([-0.9, float("nan"), 0.5]), -1.0).low == -1.0
    assert math.isnan(student(torch.tensor([float("nan")])).detectable)


def rollout(*states):
    states = torch.tensor(states).unsqueeze(-1)
    return TensorDict(
        {"observation": {"state": states[:-1]}, "next": {"observation": {"state": states[1:]}}},
        [len(states) - 1],
    )


def test_an_episode_that_begins_where_a_trained_one_does_is_left_out():
    from rftf_torchrl.recipes.study_values import unseen

    tested = torch.cat([rollout(3.0, 2.0), rollout(1.0, 3.0), rollout(2.0, 1.0)])
    tested["collector", "traj_ids"] = torch.tensor([0, 1, 2])
    tested["next", "done"] = torch.ones(3, 1, dtype=torch.bool)
    kept = unseen([rollout(1.0, 2.0)], tested)
    assert kept["collector", "traj_ids"].tolist() == [0, 2]


def configured(output):
    settings = [o for o in TINY if not o.startswith(("evaluation.", "logger"))]
    settings += ["reward=sparse", "logger=none", "threads=1", "ppo.env_steps=700"]
    settings += ["env.tasks=[drawer-open]"]
    overrides = [
        "settings=[{}]".format(",".join(f"'{setting}'" for setting in settings)),
        "+task_sets.tiny=[]",
        "only_task_sets=[tiny]",
        "seeds=[0,1]",
        "curve_episodes=2",
        f"output={output}",
    ]
    return check_study(composed(*overrides, name="study_values"))


@pytest.mark.slow
@pytest.mark.recipe
@pytest.mark.metaworld
def test_the_study_resumes_and_says_the_same(tmp_path):
    from rftf_torchrl.recipes.study_values import study_values

    some = ["demonstrations", "rollouts", "rollouts_distance"]
    study = replace(configured(tmp_path), methods=some)
    report = study_values(study)
    text = (report / "report.md").read_text(encoding="utf-8")
    for method in study.methods:
        assert f"| {study.catalogue[method].label} |" in text
    assert (report / "value_models.png").stat().st_size > 1000
    cells = sorted(tmp_path.glob("starts/tiny/*/*-*.json"))
    assert len(cells) == 2 * len(study.methods)
    found = [file for file in tmp_path.glob("starts/tiny/*/*.*") if file.name != "log.txt"]
    made = {file: file.stat().st_mtime_ns for file in found}
    removed = [cells[0], *Path(cells[0]).parent.glob("late.safetensors")]
    kept = {file: file.read_bytes() for file in removed}
    for file in removed:
        file.unlink()
    study_values(study)
    assert (report / "report.md").read_text(encoding="utf-8") == text
    assert removed[1].read_bytes() == kept[removed[1]]
    again = {file: file.stat().st_mtime_ns for file in made}
    others = [removed[1].with_name("mid.safetensors"), *removed[1].parent.glob("finetune.yaml")]
    assert {file for file in made if again[file] != made[file]} == {*removed, *others}
    versions = next(tmp_path.glob("starts/tiny/*/versions.json"))
    write_record(versions, {**read_record(versions), "torch": "0.1"})
    with pytest.raises(CellError, match=r"was made with torch 0\.1, now "):
        study_values(study)


def test_a_method_of_other_demonstrations_is_refused(tmp_path):
    from rftf_torchrl.recipes.study_values import study_values

    study = configured(tmp_path)
    more = replace(study.catalogue["wrong"], settings=["demos.per_task=50"])
    study.catalogue["wrong"] = more
    message = "method wrong of tiny has other demonstrations or policies than demonstrations, and"
    with pytest.raises(ConfigError, match=f"^{message}"):
        study_values(replace(study, methods=["demonstrations", "wrong"]))


@pytest.mark.slow
def test_every_method_can_be_composed(tmp_path):
    from rftf_torchrl.recipes.compare import run_config

    study = configured(tmp_path)
    values = [run_config(study, "tiny", method).value for method in study.methods]
    assert len({str(replace(value)) for value in values}) == len(study.methods)
    assert list(study.catalogue) == study.methods


@pytest.mark.parametrize("given", ["workers=2", "timeout=10.0", "levels=[0.5]", "curve_every=1"])
def test_a_setting_of_learning_curves_is_refused(given, tmp_path):
    from rftf_torchrl.recipes.study_values import check

    config = composed(given, f"output={tmp_path}", name="study_values")
    message = f"study_values.py does not read {given.split('=')[0]}: leave it out"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        check(config)
