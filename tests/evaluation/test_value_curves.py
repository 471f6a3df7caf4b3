"""Areas, margins and gains of hand-made value curves."""

import logging
import math
import re

import pytest
import torch
from _evaluation_fakes import trajectory

from rftf_torchrl import (
    exploitation_watch,
    final_value_auc,
    split_trajectories,
    value_curve,
    warn_if_blind,
)

NAMES = {0: "reach", 1: "push", 2: "hammer"}
DATA = torch.cat(
    [
        trajectory([0.0, 0.5, 0.9], success=True, index=0, task=0),
        trajectory([0.1, 0.8, 0.6], success=True, index=1, task=0),
        trajectory([0.0, 1.0, 0.7], success=False, index=2, task=0),
        # another scale: pooled over tasks, this success would lose against every failure above
        trajectory([0.0, 0.2], success=True, index=3, task=1),
        trajectory([0.0, 0.1, 0.1, 0.1], success=False, index=4, task=1),
        trajectory([0.2, 0.3], success=False, index=5, task=2),
    ]
)


def test_curve_has_every_state_once():
    parts = split_trajectories(DATA)
    assert list(parts) == [0, 1, 2, 3, 4, 5]
    assert torch.equal(value_curve(parts[1]), torch.tensor([0.1, 0.8, 0.6]))


def test_areas_by_hand():
    result = final_value_auc(DATA, task_names=NAMES)
    reach, push, hammer = (result["tasks"][name] for name in ("reach", "push", "hammer"))
    # final: 0.9 and 0.6 against 0.7; highest: 0.9 and 0.8 against 1.0
    assert (reach["final_auc"], reach["max_auc"]) == (0.5, 0.0)
    assert reach["final_margin"] == pytest.approx(0.75 - 0.7)
    assert reach["max_margin"] == pytest.approx(0.85 - 1.0)
    assert (push["final_auc"], push["max_auc"]) == (1.0, 1.0)
    assert push["final_margin"] == pytest.approx(0.1)
    assert math.isnan(hammer["final_auc"])
    assert (hammer["successes"], hammer["failures"]) == (0, 1)
    assert (result["final_auc"], result["max_auc"]) == (0.75, 0.5)
    assert result["final_margin"] == pytest.approx((0.05 + 0.1) / 2)


def test_tasks_without_names_are_numbers():
    assert list(final_value_auc(DATA)["tasks"]) == ["0", "1", "2"]


def test_one_outcome_alone_is_unknown():
    result = final_value_auc(trajectory([0.0, 1.0], success=True))
    assert math.isnan(result["final_auc"])
    assert result["tasks"]["0"]["successes"] == 1


def test_gains_by_hand():
    result = exploitation_watch(DATA)
    assert result["success_gain"] == pytest.approx((0.9 + 0.5 + 0.2) / 3)
    assert result["failure_gain"] == pytest.approx((0.7 + 0.1 + 0.1) / 3)
    assert result["gain_gap"] == pytest.approx((1.6 - 0.9) / 3)
    assert (result["successes"], result["failures"]) == (3, 3)
    assert math.isnan(exploitation_watch(trajectory([0.0, 1.0], success=True))["failure_gain"])


def test_other_value_key():
    renamed = DATA.clone()
    renamed.rename_key_("temporal_value", ("scores", "mine"))
    renamed.rename_key_(("next", "temporal_value"), ("next", "scores", "mine"))
    key = ("scores", "mine")
    assert exploitation_watch(renamed, value_key=key) == exploitation_watch(DATA)


def test_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert not warn_if_blind(0.6)
        assert not warn_if_blind(math.nan)
        assert caplog.messages == []
        assert warn_if_blind(0.52)
    assert caplog.messages == [
        "the value model tells successes from failures with an area under the ROC curve of 0.520, "
        "below 0.60 (0.5 is chance): its dense reward says little about success"
    ]


def test_missing_values_are_named():
    message = "('next', 'temporal_value') is missing from the trajectories, which hold "
    with pytest.raises(KeyError, match=re.escape(message)):
        final_value_auc(DATA.exclude(("next", "temporal_value")))
