"""Storages and arguments that cannot be balanced: one whole message for each."""

import re
import warnings

import pytest
import torch
from _outcome_buffers import buffer_of, decisions_of
from torchrl.data import LazyTensorStorage, ListStorage, ReplayBuffer, TensorDictReplayBuffer

from rftf_torchrl import BalancedTrajectorySampler


def _sampler(**options):
    return BalancedTrajectorySampler(seed=0, **options)


@pytest.mark.parametrize("outcome", [True, False])
def test_one_outcome_falls_back_to_uniform_sampling_and_warns_once(outcome):
    buffer = buffer_of(decisions_of([(outcome, 0, 5), (outcome, 1, 6)]), 4, _sampler())
    message = (
        "no task has both successful and failed trajectories in the storage "
        f"({11 if outcome else 0} of 11 decisions are from successful ones): sampling uniformly "
        "without replacement, without balance, until one has."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        drawn = [index for batch in buffer for index in batch["index"].tolist()]
    assert sorted(drawn) == list(range(11))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        buffer.extend(decisions_of([(outcome, 0, 11)]))
        drawn = [index for batch in buffer for index in batch["index"].tolist()]
    assert sorted(drawn) == list(range(11))


GOOD = decisions_of([(True, 0, 2), (False, 0, 2)])
MISSING = (
    "{key} is not in the storage, which has {available}. Write it to every decision before "
    "extending the buffer (rftf_torchrl.label_outcomes writes the outcome, once the "
    "trajectories are complete), or name another key with {argument}=."
)
BROKEN = [
    (
        KeyError,
        GOOD.exclude("trajectory_success"),
        MISSING.format(
            key="'trajectory_success'",
            available=["('collector', 'traj_ids')", "index", "task_id"],
            argument="success_key",
        ),
    ),
    (
        KeyError,
        GOOD.exclude("task_id"),
        MISSING.format(
            key="'task_id'",
            available=["('collector', 'traj_ids')", "index", "trajectory_success"],
            argument="task_key",
        ),
    ),
    (
        KeyError,
        GOOD.exclude(("collector", "traj_ids")),
        MISSING.format(
            key="('collector', 'traj_ids')",
            available=["index", "task_id", "trajectory_success"],
            argument="trajectory_key",
        ),
    ),
    (
        TypeError,
        GOOD.clone().set("trajectory_success", torch.ones(4, 1)),
        "'trajectory_success' has dtype torch.float32 in the storage; expected torch.bool.",
    ),
    (
        ValueError,
        GOOD.clone().set("task_id", torch.ones(4, 2)),
        "'task_id' has shape [4, 2] in the storage; expected [4, 1] or [4], one number per "
        "decision.",
    ),
    (
        ValueError,
        GOOD.clone().set("trajectory_success", torch.tensor([[True], [True], [False], [True]])),
        "'trajectory_success' is both True and False in trajectory 1 of ('collector', "
        "'traj_ids'); expected one outcome per trajectory. Write the outcome to every step once "
        "the trajectory is complete, or pass trajectory_key=None if ids repeat in the storage.",
    ),
]


@pytest.mark.parametrize(("error", "decisions", "message"), BROKEN)
def test_broken_storages(error, decisions, message):
    buffer = buffer_of(decisions.clone(), 2, _sampler())
    with pytest.raises(error) as caught:
        buffer.sample()
    assert caught.value.args[0] == message


def test_storages_of_other_kinds_are_refused():
    buffer = ReplayBuffer(storage=ListStorage(4), sampler=_sampler(), batch_size=2)
    buffer.extend([1, 2, 3])
    message = "the storage holds a int; expected tensordicts, one per decision."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        buffer.sample()
    storage = LazyTensorStorage(4, ndim=2)
    buffer = TensorDictReplayBuffer(storage=storage, sampler=_sampler(), batch_size=2)
    buffer.extend(GOOD.clone().reshape(2, 2))
    message = (
        "the storage has 2 dimensions; expected single decisions [N]. Build it with ndim=1 and "
        "flatten batches before extend."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        buffer.sample()


def test_unknown_epoch_is_refused():
    with pytest.raises(ValueError, match=r"^epoch is 'longest'; expected 'total' or 'larger'\.$"):
        BalancedTrajectorySampler(epoch="longest")
