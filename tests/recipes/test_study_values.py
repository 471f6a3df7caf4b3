"""The study of value models: its terms by hand, and the whole of it on a tiny set."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _composed import composed
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from tiny import TINY
from torch import nn

from rftf_torchrl import (
    ConfigError,
    TemporalValueModel,
    check_study,
    load_demonstrations,
    write_synthetic_demonstrations,
)
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.study.cell import CellError


def test_last_states_newest_first():
    from rftf_torchrl.recipes.value_terms import last_states

    states = torch.tensor([[1.0], [2.0], [3.0]])
    assert last_states(states, 3).tolist() == [[1, 1, 1], [2, 1, 1], [3, 2, 1]]
    assert torch.equal(last_states(states, 1), states)


@pytest.mark.parametrize("rewound", [False, True])
def test_demonstrations_with_context(tmp_path, rewound):
    from rftf_torchrl.recipes.value_terms import Tried, with_context

    demonstrations = load_demonstrations(write_synthetic_demonstrations(tmp_path / "demos"))
    found = with_context(Tried(context=2, rewound=rewound), demonstrations, 0)
    assert len(found.episodes) == len(demonstrations.episodes) * (1 + rewound)
    turned = 0
    for number, episode in enumerate(found.episodes):
        old = demonstrations.episodes[number // (1 + rewound)]
        states = demonstrations.frames[old.start : old.stop]["observation", "state"]
        frames = found.frames[episode.start : episode.stop]
        now, other = frames["observation", "state"].chunk(2, -1)
        assert torch.equal(now, states)
        before, after = torch.cat([states[:1], states[:-1]]), torch.cat([states[1:], states[-1:]])
        if rewound and number % 2:
            back = (other == after).all(-1)
            assert (back | (other == before).all(-1)).all()
            turned += int((back & (after != before).any(-1)).sum())
        else:
            assert torch.equal(other, before)
        assert torch.equal(
            frames["instruction", "tokens"],
            demonstrations.frames[old.start : old.stop]["instruction", "tokens"],
        )
    assert bool(turned) == rewound


def rollout(*states):
    states = torch.tensor(states).unsqueeze(-1)
    return TensorDict(
        {"observation": {"state": states[:-1]}, "next": {"observation": {"state": states[1:]}}},
        [len(states) - 1],
    )


def test_a_rollout_with_context_has_the_same_value_before_and_after():
    from rftf_torchrl.recipes.value_terms import Tried, rollout_with_context

    plain = rollout(1.0, 2.0, 3.0, 4.0)
    found = rollout_with_context(Tried(context=2), plain)
    assert found["observation", "state"].tolist() == [[1, 1], [2, 1], [3, 2]]
    assert found["next", "observation", "state"].tolist() == [[2, 1], [3, 2], [4, 3]]
    assert plain["observation", "state"].shape == (3, 1)


def test_the_minimum_is_calibrated_and_below_every_member():
    from rftf_torchrl.recipes.study_values import minimum

    torch.manual_seed(0)
    members = [TemporalValueModel(nn.Linear(3, 1), in_keys=["state"]) for _ in range(3)]
    ends = [TensorDict({"state": torch.randn(4, 3)}, [4]) for _ in range(2)]
    for member in members:
        sign = torch.sign(member.raw(ends[1]).mean() - member.raw(ends[0]).mean())
        member.network.weight.data *= sign
        member.calibrate(*ends, mode="global")
    data = TensorDict({"state": torch.randn(5, 3)}, [5])
    values = torch.stack([member(data.copy())["temporal_value"] for member in members])
    assert torch.equal(minimum(members)(data)["temporal_value"], values.amin(0))
    assert len({int(row) for row in values.argmin(0).flatten()}) > 1
    assert isinstance(minimum(members), TensorDictModule)
    assert minimum(members[:1]) is members[0]


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

    some = [
        "demonstrations",
        "rollouts",
        "rollouts_distance",
        "rollouts_minimum",
        "rollouts_rewound",
    ]
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


def test_a_method_that_reads_the_last_states_takes_no_images(tmp_path):
    from rftf_torchrl.recipes.study_values import study_values

    study = replace(configured(tmp_path), methods=["context"])
    study = replace(study, task_sets={"pixels": ["env.image_size=16"]})
    with pytest.raises(ConfigError, match=r"^method context reads the last states, and pixels has"):
        study_values(study)


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
