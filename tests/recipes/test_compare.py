"""Studies: every one composes, a killed one continues, and the same cells give the same report."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from _composed import composed
from tiny import RECIPES, TINY, tiny_study

from rftf_torchrl import (
    CellError,
    ConfigError,
    FolderInUseError,
    cell_file,
    check_study,
    load_cell,
    own_folder,
)
from rftf_torchrl.configs.artefacts import whole_demos
from rftf_torchrl.digests import write_record

STUDIES = [
    pytest.param(path.stem, marks=[pytest.mark.libero] * (path.stem == "libero"))
    for path in sorted((RECIPES / "conf" / "study").glob("*.yaml"))
]


def configured(*overrides):
    return check_study(composed(*overrides, name="compare"))


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_method_of_every_study_can_be_run(name):
    from rftf_torchrl.recipes.compare import list_jobs

    study = replace(configured(f"study={name}"), seeds=[0])
    own = {"own_reward", "own_peak"} if name == "libero" else set()  # it has no dense reward
    methods = [method for method in study.catalogue if method not in own]
    first = dict([next(iter(study.task_sets.items()))])
    jobs = list_jobs(replace(study, methods=methods, task_sets=first), "")
    assert len(jobs) == len(methods)
    # A task set may fix what a method of the catalogue changes; the study does not pick that one.
    picked = list_jobs(study, "")
    assert all(job.config.ppo.env_steps for job in [*jobs, *picked])
    shared = {(job.task_set, job.shared.output) for job in [*jobs, *picked]}
    assert len(shared) == len(study.task_sets), "equal start for all methods"
    assert len({job.digest for job in picked}) == len(picked), "no two methods are the same"


def test_methods_share_a_value_model_where_it_would_be_the_same(tmp_path):
    from rftf_torchrl.recipes.compare import list_jobs

    def folder(*settings):
        study = replace(configured("study=quick"), seeds=[0], methods=["rftf"])
        study.catalogue["rftf"].settings = ["reward=rftf", *settings]
        value = list_jobs(study, "")[0].with_value
        return value and value.output

    usual = folder()
    assert folder("reward.dense_weight=0.5") == folder("value.refresh_steps=3") == usual
    (tmp_path / "ten").mkdir()
    (tmp_path / "more").mkdir()
    others = ["value.steps=7", "ppo.tasks=[reach]"]
    others += [f"data.path={tmp_path / name}" for name in ("ten", "more")]
    assert len({usual, *map(folder, others)}) == 5
    assert folder("value.path=/model.safetensors") is None, "nothing is trained"


def test_a_value_model_that_is_used_as_it_is_has_no_step(tmp_path):
    from rftf_torchrl.recipes import compare as recipe

    study = configured(*tiny_study(tmp_path, "methods=[rftf]", "seeds=[0]", "baseline=rftf"))
    study.catalogue["rftf"].settings = ["reward=rftf", "value.kind=own_value:Sum"]
    (job,) = recipe.list_jobs(study, "")
    assert job.with_value is None
    start = Path(job.shared.output, "start.json")
    start.parent.mkdir(parents=True)
    start.touch()
    assert recipe.next_step(job)[0] is recipe.run_cell


@pytest.mark.parametrize(("workers", "own"), [(0, 3), (1, 0), (None, 0)])
def test_a_cell_in_a_process_of_its_own_starts_no_others(tmp_path, workers, own):
    from rftf_torchrl.recipes.compare import list_jobs

    study = configured(*tiny_study(tmp_path, "seeds=[0]"))
    study.settings += ["collector=server", "collector.workers=3"]
    for job in list_jobs(replace(study, workers=workers), ""):
        assert job.config.collector.workers == own
        assert job.config.collector.policy == ("copy" if workers != 0 else "server")


def test_a_later_setting_wins():
    from rftf_torchrl.recipes.compare import last_of_each

    assert last_of_each(["env=a", "ppo.epochs=1", "env=b"]) == ["env=b", "ppo.epochs=1"]


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        (
            [
                "methods=[sparse,rtff]",
                "workers=-1",
                "timeout=1.0",
                "levels=[2.0]",
                "seeds=[0,0]",
                "only_task_sets=[hard]",
            ],
            [
                "methods: unknown method 'rtff', choose from bc, sparse, ",
                "only_task_sets: unknown task set 'hard', choose from state_quick",
                "seeds=[0, 0]: each name once",
                "workers=-1: must be at least 0",
                "timeout=1.0: must be above 1",
                "levels.0=2.0: must be at most 1",
            ],
        ),
        (["baseline=keep"], ["baseline='keep': expected one of the methods of the study"]),
    ],
)
def test_a_wrong_study_is_refused(overrides, problems):
    with pytest.raises(ConfigError, match=r"^the study can't be run:") as caught:
        configured("study=quick", *overrides)
    for problem in problems:
        assert f"\n  - {problem}" in str(caught.value)


def test_calvin_has_its_own_recipe(tmp_path):
    from rftf_torchrl.recipes.compare import list_jobs

    study = configured("study=quick", "settings=['env=calvin_state']", f"output={tmp_path}")
    message = (
        "compare.py counts success over held-out episodes, and calvin has an evaluation of its "
        "own: run quickstart.py for each seed, with baseline=sparse"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        list_jobs(replace(study, task_sets={"one": []}), "")


def test_cells_on_a_cluster(tmp_path):
    from rftf_torchrl.recipes.compare import list_jobs

    on_ray = "settings=['collector.workers=2','collector.engine=ray']"
    study = configured("study=quick", on_ray, f"output={tmp_path}")
    message = (
        "collector.engine=ray: a study plays its cells in processes of this machine: leave it "
        "out, and choose how many by workers=..."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        list_jobs(replace(study, task_sets={"one": []}), "")


def test_a_cells_own_seed_and_folder_are_refused_in_settings(tmp_path):
    from rftf_torchrl.recipes.compare import list_jobs

    study = configured("study=quick", "settings=['seed=7']", f"output={tmp_path}")
    message = "seed=7: a study gives each cell its own seed and folder, and goes on by itself:"
    with pytest.raises(ConfigError, match=f"^{message}"):
        list_jobs(replace(study, task_sets={"one": []}), "")


@pytest.mark.libero
def test_more_held_out_states_than_there_are(tmp_path):
    from rftf_torchrl.recipes.compare import list_jobs

    study = configured("study=libero", "curve_episodes=51", f"output={tmp_path}")
    message = (
        "libero has 50 held-out initial states of each task, and the study asks for 51: lower "
        "evaluation.episodes_per_task or curve_episodes"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        list_jobs(study, "")


@pytest.mark.recipe
@pytest.mark.metaworld
def test_a_killed_study_continues_and_two_runs_are_identical(tmp_path, monkeypatch):
    from rftf_torchrl.recipes import compare as recipe

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    report = recipe.compare(configured(*tiny_study(whole, "workers=0")), "compare.py")
    run_cell, finished = recipe.run_cell, []

    def interrupted(job):
        if len(finished) == 2:
            raise KeyboardInterrupt
        finished.append(run_cell(job))

    monkeypatch.setattr(recipe, "run_cell", interrupted)
    study = configured(*tiny_study(broken, "workers=0"))
    with pytest.raises(KeyboardInterrupt):
        recipe.compare(study, "compare.py")
    assert not (broken / "report").exists(), "no result is invented"
    stamps = [path.stat().st_mtime_ns for path in finished]
    monkeypatch.setattr(recipe, "run_cell", run_cell)
    recipe.compare(study, "compare.py")
    assert [path.stat().st_mtime_ns for path in finished] == stamps, "nothing is run twice"

    files = sorted(path.relative_to(whole) for path in whole.glob("cells/*/*/*.json"))
    assert len(files) == 4
    for file in files:
        assert load_cell(whole / file) == load_cell(broken / file)
    tables = ("cells.csv", "curves.csv", "methods.csv", "curves_tiny.png")
    for name in tables:
        assert (report.parent / name).read_bytes() == (broken / "report" / name).read_bytes()
    before = report.read_bytes()
    recipe.compare(configured(*tiny_study(whole, "workers=0")), "compare.py")
    assert report.read_bytes() == before

    charged = load_cell(whole / "cells" / "tiny" / "rftf_failures" / "seed0.json")
    sparse = load_cell(whole / "cells" / "tiny" / "sparse" / "seed0.json")
    assert charged.charged_steps > 0 == sparse.charged_steps
    assert charged.curve[1].env_steps == charged.charged_steps
    assert charged.curve[0] == sparse.curve[0], "equal start"
    assert charged.states["shared"] == 0 < charged.states["training"]

    monkeypatch.setattr(recipe, "run_cells", lambda *_: pytest.fail("before anything is run"))
    (broken / "cells" / "tiny" / "sparse" / "seed0.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"seed0\.json is truncated or no JSON"):
        recipe.compare(study, "compare.py")
    other = configured(*tiny_study(whole, "workers=0", "seeds=[0,1,2]", "curve_episodes=2"))
    with pytest.raises(ValueError, match=r"seed0\.json was made under other settings"):
        recipe.compare(other, "compare.py")


@pytest.mark.recipe
@pytest.mark.metaworld
def test_as_a_command_with_processes(tmp_path):
    options = ["seeds=[0]", "methods=[bc,sparse]", "workers=1", f"report={tmp_path}/docs"]
    command = [
        sys.executable,
        str(RECIPES / "compare.py"),
        "study=quick",
        *(o for o in tiny_study(tmp_path / "out") if not o.startswith(("seeds", "methods"))),
        *options,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    text = Path(tmp_path, "docs", "report.md").read_text(encoding="utf-8")
    assert "cloned policy" in text
    assert "python recipes/compare.py study=quick" in text
    assert str(tmp_path) not in text
    cells = sorted(Path(tmp_path, "out", "cells", "tiny").glob("*/seed0.json"))
    assert [json.loads(cell.read_text(encoding="utf-8"))["method"] for cell in cells] == [
        "bc",
        "sparse",
    ]


def test_a_start_that_other_versions_have_made_is_refused(tmp_path, monkeypatch):
    """Of a study that was stopped before its first cell; a finished cell needs it no more."""
    from rftf_torchrl.recipes import compare as recipe

    study = configured(*tiny_study(tmp_path, "methods=[sparse]", "seeds=[0]", "workers=0"))
    (job,) = recipe.list_jobs(study, "")
    start = Path(job.shared.output, "start.json")
    start.parent.mkdir(parents=True)
    write_record(start, {"versions": {**recipe.versions(), "torch": "1.0.0"}})
    monkeypatch.setattr(recipe, "run_cells", lambda *_: pytest.fail("before anything is run"))
    message = rf"the study can't go on:\n  - {start} was made with torch 1\.0\.0, now .*: install"
    with pytest.raises(CellError, match=message):
        recipe.compare(study)
    write_record(start, {"versions": recipe.versions()})
    recipe.check_starts([job])
    write_record(start, {})
    cell = cell_file(job.folder, *job.key)
    cell.parent.mkdir(parents=True)
    cell.touch()
    recipe.check_starts([job])


def test_a_cell_that_fails_and_one_that_is_lost_do_not_stop_the_others(tmp_path, monkeypatch):
    from rftf_torchrl.recipes import compare as recipe

    jobs = recipe.list_jobs(configured(*tiny_study(tmp_path, "methods=[sparse]")), "")
    for job in jobs:
        start = Path(job.shared.output, "start.json")
        start.parent.mkdir(parents=True)
        start.touch()
    monkeypatch.setattr(recipe, "run_cell", fail_or_die)
    message = (
        "the study is not complete; run it again after a look at:"
        "\n  - fail_or_die of sparse, tiny, seed 0: no disk"
        "\n  - fail_or_die of sparse, tiny, seed 1: its process died with exit code 3"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        recipe.run_cells(jobs, 1, tmp_path / "workers.log", 300.0)


@pytest.mark.slow
def test_a_cell_that_stops_is_noticed_and_does_not_stop_the_others(tmp_path, monkeypatch):
    from rftf_torchrl.recipes import compare as recipe

    jobs = recipe.list_jobs(configured(*tiny_study(tmp_path, "methods=[sparse]")), "")
    for job in jobs:
        start = Path(job.shared.output, "start.json")
        start.parent.mkdir(parents=True)
        start.touch()
    monkeypatch.setattr(recipe, "run_cell", stop)
    message = (
        "the study is not complete; run it again after a look at:"
        "\n  - stop of sparse, tiny, seed 0: its process hung for 5 s"
        "\n  - stop of sparse, tiny, seed 1: no disk"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        recipe.run_cells(jobs, 1, tmp_path / "workers.log", 5.0)


def stop(job):
    if job.config.seed == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    raise OSError("no disk")


def test_a_cell_gives_signs_of_life_as_long_as_it_takes(tmp_path, monkeypatch):
    from rftf_torchrl.recipes import compare as recipe

    monkeypatch.setattr(recipe, "SIGN_OF_LIFE", 0.001)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    sent, three = [], threading.Event()

    def send(message):
        sent.append(message)
        if len(sent) == 3:
            three.set()

    player = recipe.CellPlayer(tmp_path / "workers.log")
    player.play((lambda cell: three.wait(), None), send)
    assert sent[:3] == [None] * 3
    assert sent[-1] == ""


def own(folder, owned):
    with own_folder(folder, "compare"):
        owned.set()
        time.sleep(60)


def test_a_second_study_leaves_the_first_ones_folder_alone(tmp_path):
    from rftf_torchrl.recipes.compare import compare

    context = get_context("fork")
    owned = context.Event()
    first = context.Process(target=own, args=[tmp_path, owned])
    first.start()
    try:
        assert owned.wait(30)
        with pytest.raises(FolderInUseError, match="the stage 'compare' of"):
            compare(configured(*tiny_study(tmp_path)))
        assert not (tmp_path / "starts").exists()
    finally:
        first.kill()
        first.join()


def fail_or_die(job):
    if job.config.seed == 0:
        raise OSError("no disk")
    os._exit(3)


@pytest.mark.metaworld
def test_shared_initial_states_are_refused(configure, tmp_path, monkeypatch):
    from rftf_torchrl.recipes import study_cells
    from rftf_torchrl.recipes.collect_demos import collect

    config = configure(*TINY, f"output={tmp_path}", "env.tasks=[drawer-open]")
    collect(config)
    counts = study_cells.initial_states(config, 2, False, 2)
    assert counts == {"training": 2 * 2 + 2, "evaluation": 2, "shared": 0}
    brought = whole_demos(config)
    unknown = [replace(episode, goal_seed=None) for episode in brought.episodes]
    with monkeypatch.context() as patch:
        patch.setattr(study_cells, "whole_demos", lambda _: replace(brought, episodes=unknown))
        counts = study_cells.initial_states(config, 0, False, 3)
    assert counts == {"training": 0, "evaluation": 3, "shared": 0}
    from rftf_torchrl.metaworld import door

    simulator = door.MetaWorldSimulator
    monkeypatch.setattr(
        door,
        "MetaWorldSimulator",
        lambda task, split, **kwargs: simulator(task, "train", **kwargs),
    )
    trained = study_cells.training_episodes(config, 0)[0]
    monkeypatch.setattr(study_cells, "held_out_episodes", lambda *_: [trained])
    with pytest.raises(RuntimeError, match="training and evaluation share 16 initial states"):
        study_cells.initial_states(config, 2, False, 2)


@pytest.mark.parametrize("name", ["a=b", "1e3", "x,y [z]", 'say "hi"'])
def test_a_folder_of_any_name(tmp_path, name):
    from rftf_torchrl.recipes.compare import run_config

    study = replace(configured(*tiny_study(tmp_path)), output=str(tmp_path / name))
    assert run_config(study, "tiny", "sparse").output == str(tmp_path / name)


def test_settings_of_a_run_are_no_study():
    with pytest.raises(ConfigError, match="the settings are those of a run, not of a study"):
        check_study(composed("output=x"))
