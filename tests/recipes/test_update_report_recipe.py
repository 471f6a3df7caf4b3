"""The report on an update end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


@pytest.fixture(scope="module")
def cloned(configure, tmp_path_factory):
    from collect_demos import collect
    from train_bc import clone

    folder = tmp_path_factory.mktemp("run")
    config = configure(*TINY, "reward=sparse", "env.horizon=20", f"output={folder}")
    collect(config)
    clone(config)
    return config


def test_update_report(cloned):
    from update_report import report_update

    report = report_update(cloned)
    assert json.loads(Path(cloned.output, "update_report.json").read_text()) == report
    assert report["batches"].keys() == {"updated on", "held out"}
    for batch in report["batches"].values():
        low, high = batch["interval"]
        assert batch["episodes"] == 4
        assert low < batch["gain"] < high
        assert batch["kl"] > 0
    # Three batches of four episodes, of 20 decisions of 2 actions held for 8 steps at most.
    assert 0 < report["simulator_steps"] <= 3 * 4 * 20 * 2 * 8
    assert report_update(cloned) == report


def test_a_step_of_zero_gains_nothing(cloned):
    from update_report import report_update

    still = replace(cloned, ppo=replace(cloned.ppo, learning_rate=0.0))
    for batch in report_update(still)["batches"].values():
        assert batch["gain"] == pytest.approx(0, abs=1e-5)
