"""label_time_left, and a critic that is told."""

from __future__ import annotations

import re

import pytest
import torch
from tensordict import TensorDict

from rftf_torchrl import EncoderConfig, keys, label_time_left, small_critic


def steps(*ids: int) -> TensorDict:
    return TensorDict({"next": {}, keys.TRAJECTORY: torch.tensor(ids)}, [len(ids)])


def test_every_state_of_a_trajectory_has_its_time():
    data = label_time_left(steps(4, 4, 4, 1, 1), 4)
    assert data["time_left"].squeeze(-1).tolist() == [1.0, 0.75, 0.5, 1.0, 0.75]
    assert data["next", "time_left"].squeeze(-1).tolist() == [0.75, 0.5, 0.25, 0.75, 0.5]


def test_an_episode_that_runs_out_of_time_has_none_left():
    assert label_time_left(steps(0, 0), 2)["next", "time_left"][-1] == 0


def test_a_horizon_that_is_too_short_is_refused():
    message = "a trajectory has 3 decisions and the horizon is 2: pass the environment's own."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        label_time_left(steps(0, 0, 0), 2)


def test_shuffled_steps_are_refused():
    message = (
        "the steps of a trajectory are not one after another in ('collector', 'traj_ids'), and the "
        "time of a step is counted: do this to a collector's batch (traj_format='cat'), before the "
        "steps are shuffled."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        label_time_left(steps(0, 1, 0), 2)
    with pytest.raises(KeyError) as caught:
        label_time_left(TensorDict({"next": {}}, [1]), 2)
    assert caught.value.args[0] == (
        "('collector', 'traj_ids') is missing, so the time of a step is not known."
    )


def test_a_critic_that_is_told_learns_what_time_decides():
    torch.manual_seed(0)
    critic = small_critic(EncoderConfig(image_size=None, state_dim=2), time_key=keys.TIME_LEFT)
    assert critic.in_keys[-1] == "time_left"
    time = torch.rand(64, 1)
    data = TensorDict({("observation", "state"): torch.zeros(64, 2), "time_left": time}, [64])
    data["instruction"] = {
        "tokens": torch.ones(64, 3, dtype=torch.int64),
        "mask": torch.ones(64, 3, dtype=torch.bool),
    }
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(200):
        loss = (critic(data)["state_value"] - (time > 0.5).float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # not told, it can't be below 0.2
