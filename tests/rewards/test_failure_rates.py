"""label_failure_rates, and a dense reward that fades by it."""

from __future__ import annotations

import re

import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import DenseReward, keys, label_failure_rates


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def played(*steps: tuple[int, int, bool]) -> TensorDict:
    """Steps of (trajectory, task, whether the trajectory succeeded)."""
    trajectories, tasks, won = zip(*steps, strict=True)
    data = TensorDict({keys.TASK_ID: column(*tasks)}, [len(steps)])
    data[keys.TRAJECTORY_SUCCESS] = column(*won)
    data[keys.TRAJECTORY] = torch.tensor(trajectories)
    return data


def test_each_trajectory_counts_once_for_its_own_task():
    failed = (7, 3, False)
    won = [(number, 3, True) for number in (2, 1, 6)]
    data = played((5, 9, True), *[failed] * 8, (5, 9, True), *won)
    rates = label_failure_rates(data)["failure_rate"]
    assert rates.dtype == torch.float32
    assert rates.squeeze(-1).tolist() == [0.0, *[0.25] * 8, 0.0, *[0.25] * 3]


def test_steps_may_be_shuffled_and_have_any_shape():
    data = played(*[(i % 5, i % 5 % 2, i % 5 == 3) for i in range(10)])
    order = torch.randperm(10)
    rates = label_failure_rates(data.clone())["failure_rate"]
    assert torch.equal(label_failure_rates(data[order])["failure_rate"], rates[order])
    folded = label_failure_rates(data.reshape(5, 2))["failure_rate"]
    assert torch.equal(folded, rates.reshape(5, 2, 1))


def test_a_missing_entry_is_named():
    with pytest.raises(KeyError) as caught:
        label_failure_rates(played((0, 0, False)).exclude(keys.TASK_ID))
    assert caught.value.args[0] == "'task_id' is missing, so how often a task fails is not known."


def rewarded(share_key: str | None = "failure_rate") -> TensorDict:
    data = played((0, 0, False), (0, 0, False), (1, 0, True), (2, 1, True))
    data = label_failure_rates(data)
    data[keys.TEMPORAL_VALUE] = column(0.0, 0.25, 0.0, 0.0)
    data["next", keys.TEMPORAL_VALUE] = column(0.25, 0.75, 1.0, 1.0)
    data["next", "success"] = data["next", "terminated"] = column(False, False, True, True)
    return DenseReward("peak", dense_weight=0.5, share_key=share_key)(data)


def test_the_dense_reward_is_paid_by_the_share():
    """Half of task 0 failed, nothing of task 1 did, so its dense reward is gone."""
    data = rewarded()
    assert data["next", "reward"].squeeze(-1).tolist() == [0.0625, 0.125, 1.25, 1.0]
    whole = rewarded(share_key=None)
    assert whole["next", "reward"].squeeze(-1).tolist() == [0.125, 0.25, 1.5, 1.5]
    assert torch.equal(data["next", "dense_reward"], whole["next", "dense_reward"])


def test_a_missing_share_is_named():
    data = rewarded(share_key=None)
    with pytest.raises(KeyError) as caught:
        DenseReward("peak", dense_weight=0.5, share_key="share")(data)
    assert caught.value.args[0] == "'share' is missing, by which the dense reward is weighted."
    message = "'share' must have shape (4, 1), got (4,)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DenseReward("peak", dense_weight=0.5, share_key="share")(data.set("share", torch.ones(4)))


def test_success_alone_needs_no_share():
    data = rewarded(share_key=None)
    paid = DenseReward(None, share_key="share")(data)["next", "reward"]
    assert paid.squeeze(-1).tolist() == [0.0, 0.0, 1.0, 1.0]
