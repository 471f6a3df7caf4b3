"""Group-normalised advantages: hand-computed numbers, lost members, wrong input."""

import re

import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import group_advantage


def trajectories(*specs):
    """(group, length, outcome) of each trajectory -> a flat batch."""
    parts = []
    for number, (group, length, outcome) in enumerate(specs):
        done = torch.arange(length).unsqueeze(-1) == length - 1
        part = {"episode_seed": torch.full((length, 1), group)}
        part["next"] = {"done": done, "outcome_reward": done * float(outcome)}
        part["number"] = torch.full((length,), number)
        parts.append(TensorDict(part, [length]))
    return torch.cat(parts)


def advantages(data):
    return {
        number: data["advantage"][data["number"] == number].squeeze(-1).tolist()
        for number in data["number"].unique().tolist()
    }


def test_every_decision_has_its_trajectorys_standardised_outcome():
    data = trajectories((3, 2, 1), (4, 1, 0), (3, 3, 0), (3, 1, 0), (4, 2, 0), (4, 1, 0))
    found = advantages(group_advantage(data, 3))
    low, high = -1 / 3 / (1 / 3) ** 0.5, 2 / 3 / (1 / 3) ** 0.5
    assert found[0] == pytest.approx([high] * 2)
    assert found[2] == pytest.approx([low] * 3)
    assert found[3] == pytest.approx([low])
    assert found[1] + found[4] + found[5] == [0.0] * 4, "all failed: nothing to learn from"


def test_a_group_that_lost_a_member_is_compared_within_the_others():
    data = trajectories((3, 2, 1), (4, 1, 1), (5, 1, 0), (3, 2, 0), (5, 2, 1), (5, 1, 1))
    found = advantages(group_advantage(data, 3))
    apart = 0.5**0.5
    assert found[0] == pytest.approx([apart] * 2)
    assert found[3] == pytest.approx([-apart] * 2)
    assert found[1] == [0.0], "alone: nothing to compare with"
    assert found[4] == pytest.approx([(1 / 3) ** 0.5] * 2)
    assert data["number"].tolist() == [0, 0, 1, 2, 3, 3, 4, 4, 5], "the rows stay in order"


def test_where_nothing_can_be_compared_a_warning_says_so(caplog):
    data = group_advantage(trajectories((3, 2, 1), (4, 1, 0)), 2)
    assert not data["advantage"].any()
    assert "collect each initial state 2 times" in caplog.text


@pytest.mark.parametrize(
    ("data", "size", "error", "message"),
    [
        (
            trajectories((3, 1, 1), (3, 1, 0)),
            1,
            ValueError,
            "group_size is 1; a group needs at least 2 trajectories.",
        ),
        (
            trajectories(*[(3, 1, 1)] * 3, *[(4, 1, 0)] * 5),
            2,
            ValueError,
            "group 3 has 3 trajectories and group_size is 2: give every group its own number in "
            "'episode_seed'.",
        ),
        (
            trajectories((3, 1, 1), (3, 1, 0)).exclude("episode_seed"),
            2,
            KeyError,
            "'episode_seed' is missing; group_advantage needs group, reward and done.",
        ),
    ],
)
def test_wrong_input(data, size, error, message):
    with pytest.raises(error, match=re.escape(message)):
        group_advantage(data, size)
