"""Decisions of successful and failed trajectories, and replay buffers that hold them."""

from __future__ import annotations

import warnings

import torch
from hypothesis import settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

fast = settings(max_examples=40, deadline=None)

trajectories = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 7)), min_size=1, max_size=12
)


def decisions_of(trajectories, first_id=0):
    """Decisions of (success, task, length) trajectories, one after another."""
    success = [success for success, _, length in trajectories for _ in range(length)]
    task = [task for _, task, length in trajectories for _ in range(length)]
    ids = [first_id + i for i, (_, _, length) in enumerate(trajectories) for _ in range(length)]
    return TensorDict(
        {
            "trajectory_success": torch.tensor(success).unsqueeze(-1),
            "task_id": torch.tensor(task).unsqueeze(-1),
            ("collector", "traj_ids"): torch.tensor(ids),
        },
        [len(ids)],
    )


def buffer_of(decisions, batch_size, sampler, capacity=None, **options):
    storage = LazyTensorStorage(capacity or len(decisions))
    buffer = TensorDictReplayBuffer(
        storage=storage, sampler=sampler, batch_size=batch_size, **options
    )
    buffer.extend(decisions)
    return buffer


def quiet_epoch(buffer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [batch["index"].tolist() for batch in buffer]


def pools_by_task(decisions):
    pools = {}
    success_of = decisions["trajectory_success"][:, 0].tolist()
    task_of = decisions["task_id"][:, 0].tolist()
    for index, (success, task) in enumerate(zip(success_of, task_of, strict=True)):
        pools.setdefault(task, ([], []))[0 if success else 1].append(index)
    return pools


MIXED = [(True, 0, 5), (False, 0, 9), (False, 1, 6), (True, 1, 4), (True, 2, 8), (False, 2, 8)]
