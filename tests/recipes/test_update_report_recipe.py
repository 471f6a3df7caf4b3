"""The report on an update end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY

pytestmark = [pytest.mark.recipe, pytest.mark.metaworld]


@pytest.fixture(scope="module")
def cloned(configure, tmp_path_factory):
    from rftf_torchrl.recipes.collect_demos import collect
    from rftf_torchrl.recipes.train_bc import clone
    from rftf_torchrl.recipes.train_value import train_value

    config = configure(*TINY, "env.horizon=20", f"output={tmp_path_factory.mktemp('run')}")
    collect(config)
    clone(config)
    train_value(config)
    return config


def test_both_arms_on_the_same_episodes(cloned):
    from rftf_torchrl.recipes.update_report import report_update

    report = report_update(cloned)
    assert (
        json.loads(Path(cloned.output, "update_report.json").read_text(encoding="utf-8")) == report
    )
    assert report["arms"].keys() == {"sparse", "rftf"}
    for arm in report["arms"].values():
        for part in (arm["own"], arm["held_out"]):
            assert part["interval"][0] < part["gain"] < part["interval"][1]
        assert arm["kl"] > 1e-5
    gains = {name: arm["held_out"]["gain"] for name, arm in report["arms"].items()}
    assert report["difference"]["gain"] == pytest.approx(gains["rftf"] - gains["sparse"])
    assert report["episodes"] == 4
    # Three batches of four episodes, of 20 decisions of 2 actions held for 8 steps at most.
    assert 0 < report["simulator_steps"] <= 3 * 4 * 20 * 2 * 8
    assert report_update(cloned) == report


def test_plain_ppo_alone_is_the_same_as_beside_another_arm(cloned, configure):
    from rftf_torchrl.recipes.update_report import report_update

    both = report_update(cloned)
    plain = configure(*TINY, "env.horizon=20", "reward=sparse", f"output={cloned.output}")
    alone = report_update(plain)
    assert alone["arms"] == {"sparse": both["arms"]["sparse"]}
    assert "difference" not in alone


@pytest.mark.parametrize("critic", ["none", "temporal"])
def test_arms_without_a_critic_network(cloned, critic):
    from rftf_torchrl.recipes.update_report import report_update

    report = report_update(replace(cloned, critic=critic))
    assert report["arms"].keys() == {"sparse", "rftf"}


def test_a_step_of_zero_gains_nothing(cloned):
    from rftf_torchrl.recipes.update_report import report_update

    still = replace(cloned, ppo=replace(cloned.ppo, learning_rate=0.0))
    for arm in report_update(still)["arms"].values():
        assert arm["held_out"]["gain"] == pytest.approx(0, abs=1e-5)
