"""The report on a value model end to end, from the state and from images."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from _pages import check_page
from tiny import TINY

from rftf_torchrl import load_demonstrations

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


def prepared(config):
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    collect(config)
    clone(config)
    train_value(config)
    return config


@pytest.fixture(scope="module")
def cloned(configure, tmp_path_factory):
    """The configuration of an output folder with demonstrations, policy and value model."""
    return prepared(configure(*TINY, f"output={tmp_path_factory.mktemp('run')}"))


def test_the_report_ends_in_any_locale(cloned):
    recipe = (
        "from rftf_torchrl.recipes import value_report as recipe\n"
        "whole = recipe.run_report\n"
        "recipe.run_report = lambda *parts: whole(*parts) + '\\N{EN DASH} is no number\\n'\n"
        "recipe.main()"
    )
    command = [sys.executable, "-c", recipe, *TINY]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*command, f"output={cloned.output}"],
        env={**os.environ, **locale},
        capture_output=True,
        encoding="ascii",
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Logging error" not in done.stderr
    report = Path(cloned.output, "value_report", "report.md").read_text(encoding="utf-8")
    assert report.endswith("\N{EN DASH} is no number\n")
    assert "\\u2013 is no number" in done.stdout + done.stderr


def test_value_report(cloned, tmp_path):
    from rftf_torchrl.recipes.value_report import report_value

    report = report_value(cloned)
    folder = Path(cloned.output, "value_report")
    written = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert written["simulator_steps"] > 0
    assert written["overall"]["demonstration"]["kendall_tau"]["count"] == 2
    assert sum(report["settings"]["episodes"]["window-open"].values()) == 4 + 2
    assert report["confusion"]["tasks"] == ["window-close", "window-open"]
    check_page((folder / "report.md").read_text(encoding="utf-8"), folder)
    for name in ("value_over_progress.png", "calibration.png", "confusion.png"):
        assert (folder / name).stat().st_size > 500
    (table,) = folder.glob("progress.*")
    assert table.stat().st_size > 500
    again = report_value(cloned)
    assert json.dumps(again) == json.dumps(report)
    other = shutil.copy(cloned.folder.value_model, tmp_path / "other.safetensors")
    with pytest.raises(FileExistsError, match=r"report\.json is of .* and would be overwritten"):
        report_value(replace(cloned, value=replace(cloned.value, path=str(other))))


def test_value_report_from_pixels(configure, tmp_path):
    from rftf_torchrl.recipes.value_report import report_value

    overrides = ["env.image_size=16", "value.shuffle_time=true", f"output={tmp_path}"]
    report_value(prepared(configure(*TINY, *overrides)))
    folder = tmp_path / "value_report"
    check_page((folder / "report.md").read_text(encoding="utf-8"), folder)
    films = sorted((folder / "videos").iterdir())
    assert [film.name for film in films] == ["window-open.mp4", "window-open.webp"]


def test_value_report_needs_held_out_demonstrations(cloned, tmp_path):
    from rftf_torchrl.recipes.value_report import held_out

    demonstrations = load_demonstrations(f"{cloned.output}/demos")
    expected = (
        f"{tmp_path} has no held-out demonstrations: record them with demos.held_out_per_task=3 "
        "in another folder, or of data from outside hold out a share (data.held_out) "
        "and do not give all of them split=train"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        held_out(demonstrations.select(split="train"), tmp_path)
