"""BalancedTrajectorySampler when its storage wraps around, changes, is emptied or lies on disk."""

import re
from collections import Counter

import pytest
import torch
from _outcome_buffers import (
    MIXED,
    buffer_of,
    decisions_of,
    fast,
    pools_by_task,
    quiet_epoch,
    trajectories,
)
from hypothesis import given
from hypothesis import strategies as st
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    ListStorage,
    TensorDictReplayBuffer,
)

from rftf_torchrl import BalancedTrajectorySampler


@fast
@given(trajectories, st.lists(trajectories, min_size=1, max_size=4), st.integers(0, 99))
def test_ring_wrap_around_balances_what_is_in_the_storage(first, later, seed):
    sampler = BalancedTrajectorySampler(trajectory_key=None, seed=seed)
    buffer = buffer_of(decisions_of(first), 4, sampler, capacity=20)
    for rows in later:
        quiet_epoch(buffer)
        buffer.extend(decisions_of(rows))
        stored = buffer.storage[:]
        pools = pools_by_task(stored)
        for batch in quiet_epoch(buffer)[:-1]:
            assert max(batch) < len(stored)
            drawn = Counter(batch)
            for success, failure in pools.values():
                if success and failure:
                    successes = sum(drawn[index] for index in success)
                    assert successes == sum(drawn[index] for index in failure)


def test_overwriting_at_the_same_length_starts_a_new_epoch():
    buffer = buffer_of(decisions_of([(True, 0, 4), (False, 0, 4)]), 4, BalancedTrajectorySampler())
    buffer.sample()
    buffer.extend(decisions_of([(False, 0, 4), (True, 0, 4)], first_id=2))
    for batch in buffer:
        assert batch["trajectory_success"].sum() == 2


def test_add_and_mark_update_start_a_new_epoch():
    decisions = decisions_of([(True, 0, 4), (False, 0, 4)])
    buffer = buffer_of(decisions, 8, BalancedTrajectorySampler(seed=0), capacity=8)
    buffer.sample()
    buffer["trajectory_success"] = torch.tensor([[False]] * 4 + [[True]] * 4)
    buffer.mark_update(torch.arange(8))
    assert buffer.sample()["trajectory_success"].sum() == 4
    for _ in range(2):
        buffer.add(decisions_of([(True, 0, 1)], first_id=9)[0])
    success = buffer.storage[:]["trajectory_success"]
    drawn = torch.cat([torch.tensor(batch) for batch in quiet_epoch(buffer)])
    assert success.sum() == 6
    assert success[drawn].sum() == 4


def test_emptied_buffer_can_be_filled_again():
    buffer = buffer_of(decisions_of(MIXED), 8, BalancedTrajectorySampler(seed=0))
    buffer.sample()
    buffer.empty()
    with pytest.raises(RuntimeError, match=re.escape("Cannot sample from an empty storage.")):
        buffer.sample()
    buffer.extend(decisions_of([(True, 0, 4), (False, 0, 4)]))
    assert buffer.sample()["trajectory_success"].sum() == 4


def test_prefetching_ends_after_one_epoch():
    buffer = buffer_of(decisions_of(MIXED), 8, BalancedTrajectorySampler(seed=0), prefetch=2)
    batches = quiet_epoch(buffer)
    assert [len(batch) for batch in batches] == [8] * 5
    alone = quiet_epoch(buffer_of(decisions_of(MIXED), 8, BalancedTrajectorySampler(seed=0)))
    assert sorted(batches) == sorted(alone), "the threads race for the order, not for the rows"


def test_memmap_storage(tmp_path):
    buffer = TensorDictReplayBuffer(
        storage=LazyMemmapStorage(40, scratch_dir=tmp_path),
        sampler=BalancedTrajectorySampler(seed=0),
        batch_size=8,
    )
    buffer.extend(decisions_of(MIXED))
    assert [int(batch["trajectory_success"].sum()) for batch in buffer] == [4] * 5


def test_a_list_storage_is_sampled_like_a_tensor_storage():
    decisions = decisions_of(MIXED)
    drawn = []
    for kind in (ListStorage, LazyTensorStorage):
        buffer = TensorDictReplayBuffer(
            storage=kind(len(decisions)), sampler=BalancedTrajectorySampler(seed=0), batch_size=8
        )
        buffer.extend(decisions)
        drawn.append([batch["trajectory_success"].flatten().tolist() for batch in buffer])
    assert drawn[0] == drawn[1]
    assert all(sum(batch) == 4 for batch in drawn[0])
