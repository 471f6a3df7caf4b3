"""Walks with a ValueReward, walks without, and its equation by hand."""

from __future__ import annotations

import math

import torch
from _envs import ChunkWalkEnv, value_model, walk_policy
from tensordict import TensorDict
from torchrl.envs import TransformedEnv

from rftf_torchrl import ValueReward

WRITTEN = [
    "temporal_value",
    ("next", "temporal_value"),
    ("next", "reward"),
    ("next", "outcome_reward"),
    ("next", "dense_reward"),
]
OPTIONS = {"gamma": 0.9, "dense_weight": 0.5, "outcome_weight": 2.0}


def walk_env(batch_size=(), seed=0, **kwargs) -> TransformedEnv:
    return TransformedEnv(
        ChunkWalkEnv(batch_size, seed=seed), ValueReward(value_model(), **OPTIONS, **kwargs)
    )


def episodes(batch_size=(), steps=40) -> TensorDict:
    """Several trajectories with terminations (also inside a chunk) and truncations."""
    torch.manual_seed(0)
    data = ChunkWalkEnv(batch_size).rollout(steps, walk_policy(), break_when_any_done=False)
    assert data["next", "terminated"].any()
    assert data["next", "truncated"].any()
    assert not data["next", "executed"].all()
    return data


def by_hand(data: TensorDict, terminal: str = "zero", limits=(-math.inf, math.inf)) -> dict:
    """The equation of the class, one transition at a time, in Python floats."""
    flat = data.reshape(-1)
    (low, high), rows = limits, []
    for i in range(len(flat)):
        step = flat[i]
        value, next_value = (
            min(max(math.tanh(0.5 * side["observation", "state"][0].item()) + 0.03, low), high)
            for side in (step, step["next"])
        )
        ended = step["next", "terminated"].item() and terminal == "zero"
        dense = 0.9 * (0.0 if ended else next_value) - value
        outcome = float(step["next", "success"].item())
        rows.append([value, next_value, 2.0 * outcome + 0.5 * dense, outcome, dense])
    columns = torch.tensor(rows).reshape(*data.batch_size, 5).split(1, -1)
    return dict(zip(WRITTEN, columns, strict=True))


def assert_written(data: TensorDict, expected: dict) -> None:
    for key, tensor in expected.items():
        assert data[key].dtype == torch.float32, key
        torch.testing.assert_close(data[key], tensor, rtol=0, atol=1e-6, msg=str(key))
