"""label_outcomes: every step of a trajectory knows whether it succeeded."""

from __future__ import annotations

import re

import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import label_failure_rates, label_outcomes


def steps(ids, success, done, **extra) -> TensorDict:
    def column(values):
        return torch.tensor(values, dtype=torch.bool)[:, None]

    next_data = {"success": column(success), "done": column(done)}
    next_data.update({key: column(values) for key, values in extra.items()})
    data = TensorDict({"next": next_data}, [len(ids)])
    data["collector", "traj_ids"] = torch.tensor(ids)
    return data


def complete() -> TensorDict:
    return steps([4, 4, 9, 9, 9, 2], [0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 1, 1])


def test_by_hand():
    data = complete()
    out = label_outcomes(data)
    assert out is data
    assert out["trajectory_success"].shape == (6, 1)
    assert out["trajectory_success"].squeeze(-1).tolist() == [True, True, False, False, False, True]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_numbers_count_as_flags(dtype):
    data = complete()
    for key in ("success", "done"):
        data["next", key] = data["next", key].to(dtype)
    expected = label_outcomes(complete())["trajectory_success"]
    assert torch.equal(label_outcomes(data)["trajectory_success"], expected)


def test_order_does_not_matter():
    order = torch.tensor([5, 2, 0, 3, 1, 4])
    expected = label_outcomes(complete())["trajectory_success"][order]
    assert torch.equal(label_outcomes(complete()[order])["trajectory_success"], expected)


def test_batch_by_time():
    data = steps([1, 1, 2, 3, 3, 3], [0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 1]).reshape(2, 3)
    won = label_outcomes(data)["trajectory_success"]
    assert won.squeeze(-1).tolist() == [[True, True, False], [False, False, False]]


def test_success_before_the_last_step_counts():
    data = steps([0, 0, 0], [0, 1, 0], [0, 0, 1])
    assert label_outcomes(data)["trajectory_success"].all()


def test_incomplete_trajectories_can_be_dropped():
    data = steps([4, 4, 9, 9, 2], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1])
    out = label_outcomes(data, incomplete="drop")
    assert out["collector", "traj_ids"].tolist() == [4, 4, 2]
    assert out["trajectory_success"].squeeze(-1).tolist() == [True, True, False]
    assert "trajectory_success" not in data


def test_empty():
    out = label_outcomes(complete()[:0])
    assert out["trajectory_success"].shape == (0, 1)


def test_other_keys():
    data = complete()
    data.rename_key_(("collector", "traj_ids"), "episode")
    data.rename_key_(("next", "success"), ("next", "solved"))
    data.rename_key_(("next", "done"), ("next", "over"))
    label_outcomes(
        data,
        trajectory_key="episode",
        success_key=("next", "solved"),
        done_key=("next", "over"),
        out_key="won",
    )
    assert data["won"].sum() == 3


def unfinished() -> TensorDict:
    return steps([4, 4, 9, 7], [0, 1, 0, 0], [0, 1, 0, 0])


@pytest.mark.parametrize(
    ("data", "kwargs", "error", "message"),
    [
        (
            unfinished(),
            {},
            ValueError,
            "Trajectories 7, 9 have no step with ('next', 'done'), so their outcome is not known "
            "yet. Collect complete trajectories (trajs_per_batch), or pass incomplete='drop'.",
        ),
        (
            unfinished().reshape(2, 2),
            {"incomplete": "drop"},
            ValueError,
            "incomplete='drop' needs a flat batch [N], got batch size (2, 2). Collect with "
            "traj_format='cat'.",
        ),
        (
            steps([4, 5], [0, 0], [1, 1], crashed=[0, 1]),
            {},
            ValueError,
            "Trajectories 5 crashed: their outcome is not a failure but unknown. Drop and count "
            "them with rftf_torchrl.drop_crashed.",
        ),
        (
            steps(list(range(12)), [0] * 12, [0] * 12),
            {},
            ValueError,
            "Trajectories 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... have no step",
        ),
        (
            complete().exclude(("next", "done")),
            {},
            KeyError,
            "('next', 'done') is missing, so the outcome of a trajectory is not known.",
        ),
        (complete(), {"incomplete": "keep"}, ValueError, "'raise' or 'drop', got 'keep'."),
    ],
)
def test_errors(data, kwargs, error, message):
    with pytest.raises(error, match=re.escape(message)):
        label_outcomes(data, **kwargs)


def test_padding_belongs_to_no_trajectory():
    """As TorchRL's collectors pad trajectories: by zeros, their id included."""
    data = TensorDict({"next": {"success": torch.zeros(2, 3, 1).bool()}}, [2, 3])
    data["next", "success"][0, 2] = True
    data["next", "done"] = torch.tensor([[0, 0, 1], [1, 0, 0]]).bool()[..., None]
    data["collector", "traj_ids"] = torch.tensor([[5, 5, 5], [6, 0, 0]])
    data["collector", "mask"] = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    data["task_id"] = torch.zeros(2, 3, 1, dtype=torch.int64)
    won = label_outcomes(data)["trajectory_success"].squeeze(-1)
    assert won.tolist() == [[True, True, True], [False, False, False]]
    rates = label_failure_rates(data)["failure_rate"].squeeze(-1)
    assert rates.tolist() == [[0.5, 0.5, 0.5], [0.5, 0.0, 0.0]]
