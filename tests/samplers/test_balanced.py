"""BalancedTrajectorySampler: balance, epochs, order and randomness."""

from collections import Counter
from itertools import pairwise

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
from tensordict import TensorDict
from torchrl.data import SamplerWithoutReplacement

from rftf_torchrl import BalancedTrajectorySampler


@fast
@given(trajectories, st.integers(1, 6), st.sampled_from(["total", "larger"]), st.integers(0, 99))
def test_even_batches_are_balanced_in_every_task_with_both_outcomes(rows, half, epoch, seed):
    decisions = decisions_of(rows)
    sampler = BalancedTrajectorySampler(epoch=epoch, seed=seed)
    buffer = buffer_of(decisions, 2 * half, sampler)
    pools = pools_by_task(decisions)
    for _ in range(3):
        for batch in quiet_epoch(buffer)[:-1]:
            drawn = Counter(batch)
            for success, failure in pools.values():
                if success and failure:
                    successes = sum(drawn[index] for index in success)
                    assert successes == sum(drawn[index] for index in failure)


@fast
@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(0, 4), st.integers(0, 99))
def test_the_extra_decision_of_odd_batches_alternates(lengths, half, seed):
    decisions = decisions_of([(i % 2 == 0, 0, length) for i, length in enumerate(lengths)])
    size = 2 * half + 1
    buffer = buffer_of(decisions, size, BalancedTrajectorySampler(seed=seed))
    success = decisions["trajectory_success"][:, 0]
    for _ in range(2):
        full = [batch for batch in quiet_epoch(buffer) if len(batch) == size]
        extra = [2 * int(success[batch].sum()) - size for batch in full]
        assert all(abs(value) == 1 for value in extra)
        assert all(a == -b for a, b in pairwise(extra))


def test_the_draw_that_is_left_of_odd_epochs_alternates():
    decisions = decisions_of([(True, 0, 3), (False, 0, 6)])
    buffer = buffer_of(decisions, 4, BalancedTrajectorySampler(seed=0))
    last = [quiet_epoch(buffer)[-1] for _ in range(4)]
    success = decisions["trajectory_success"][:, 0]
    assert [success[batch].tolist() for batch in last] == [[True], [False], [True], [False]]


@fast
@given(trajectories, st.integers(1, 9), st.integers(0, 99))
def test_total_epoch_draws_as_often_as_the_stock_sampler(rows, size, seed):
    decisions = decisions_of(rows)
    buffer = buffer_of(decisions, size, BalancedTrajectorySampler(seed=seed))
    stock = buffer_of(decisions, size, SamplerWithoutReplacement())
    expected = [len(batch["index"]) for batch in stock]
    for _ in range(3):
        assert [len(batch) for batch in quiet_epoch(buffer)] == expected


@fast
@given(trajectories, st.integers(1, 9), st.sampled_from(["total", "larger"]), st.integers(0, 99))
def test_no_replacement_before_a_pool_is_exhausted(rows, size, epoch, seed):
    decisions = decisions_of(rows)
    buffer = buffer_of(decisions, size, BalancedTrajectorySampler(epoch=epoch, seed=seed))
    pools = pools_by_task(decisions)
    some_task_is_mixed = any(success and failure for success, failure in pools.values())
    for _ in range(3):
        drawn = Counter(index for batch in quiet_epoch(buffer) for index in batch)
        assert set(drawn) <= set(range(len(decisions)))
        for success, failure in pools.values():
            larger = max(success, failure, key=len)
            for pool in (success, failure):
                visits = [drawn[index] for index in pool]
                assert not pool or max(visits) - min(visits) <= 1
            if epoch == "total":
                assert max(drawn[index] for index in larger) <= 1
            if epoch == "larger" or not (success and failure) or not some_task_is_mixed:
                assert {drawn[index] for index in larger} == {1}


def test_two_total_epochs_visit_the_whole_larger_class():
    decisions = decisions_of([(True, 0, 3), (False, 0, 9)])
    buffer = buffer_of(decisions, 4, BalancedTrajectorySampler(seed=0))
    drawn = Counter(index for _ in range(3) for batch in quiet_epoch(buffer) for index in batch)
    assert {drawn[index] for index in range(3, 12)} == {2}
    assert {drawn[index] for index in range(3)} == {6}


def test_tasks_fill_batches_by_their_share_and_single_outcomes_are_visited_once():
    decisions = decisions_of([(True, 0, 10), (False, 0, 30), (False, 1, 40), (True, 2, 20)])
    buffer = buffer_of(decisions, 20, BalancedTrajectorySampler(seed=3))
    task = decisions["task_id"][:, 0]
    batches = quiet_epoch(buffer)
    assert len(batches) == 5
    for batch in batches:
        shares = torch.bincount(task[batch], minlength=3).tolist()
        assert all(abs(a - b) <= 4 for a, b in zip(shares, [8, 8, 4], strict=True))
    drawn = Counter(index for batch in batches for index in batch)
    assert {drawn[index] for index in range(40, 100)} == {1}


def test_without_task_key_all_tasks_are_balanced_together():
    decisions = decisions_of([(True, 0, 6), (False, 1, 18)]).exclude("task_id")
    buffer = buffer_of(decisions, 4, BalancedTrajectorySampler(task_key=None, seed=0))
    assert [int(batch["trajectory_success"].sum()) for batch in buffer] == [2] * 6


def test_drop_last_drops_the_incomplete_batch():
    buffer = buffer_of(decisions_of(MIXED), 12, BalancedTrajectorySampler(drop_last=True, seed=0))
    assert [len(batch) for batch in quiet_epoch(buffer)] == [12, 12, 12]
    assert [len(batch) for batch in quiet_epoch(buffer)] == [12, 12, 12]


def test_ran_out_is_reported_with_the_last_batch_of_the_epoch():
    sampler = BalancedTrajectorySampler(seed=0)
    buffer = buffer_of(decisions_of(MIXED), 16, sampler)
    reported = []
    for _ in range(6):
        buffer.sample()
        reported.append(sampler.ran_out)
    assert reported == [False, False, True, False, False, True]


def test_without_shuffle_the_order_is_that_of_the_storage():
    decisions = decisions_of([(True, 0, 2), (False, 0, 4)])
    buffer = buffer_of(decisions, 2, BalancedTrajectorySampler(shuffle=False))
    assert quiet_epoch(buffer) == [[0, 2], [1, 3], [0, 4]]
    assert quiet_epoch(buffer) == [[5, 1], [2, 0], [3, 1]]


def test_the_seed_decides_the_order_and_the_global_generator_does_not():
    def epochs(seed):
        buffer = buffer_of(decisions_of(MIXED), 8, BalancedTrajectorySampler(seed=seed))
        torch.rand(seed + 1)
        return quiet_epoch(buffer) + quiet_epoch(buffer)

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)


def test_without_seed_the_global_seed_decides():
    orders = []
    for _ in range(2):
        torch.manual_seed(5)
        orders.append(quiet_epoch(buffer_of(decisions_of(MIXED), 8, BalancedTrajectorySampler())))
    assert orders[0] == orders[1]


def test_a_generator_of_the_buffer_is_used():
    def epoch(sampler_seed):
        generator = torch.Generator().manual_seed(11)
        sampler = BalancedTrajectorySampler(seed=sampler_seed)
        return quiet_epoch(buffer_of(decisions_of(MIXED), 8, sampler, generator=generator))

    assert epoch(0) == epoch(1)


def test_flat_keys_and_other_names_are_read():
    decisions = TensorDict(
        {"won": torch.tensor([True, False, False]), "episode": torch.arange(3)}, [3]
    )
    sampler = BalancedTrajectorySampler("won", "episode", None, seed=0)
    buffer = buffer_of(decisions, 2, sampler)
    assert buffer.sample()["won"].sum() == 1
