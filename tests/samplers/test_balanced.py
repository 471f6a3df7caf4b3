"""BalancedTrajectorySampler: balance, epochs, ring wrap-around, resuming and broken storages."""

import pickle
import re
import warnings
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    ListStorage,
    SamplerWithoutReplacement,
    TensorDictReplayBuffer,
)

from rftf_torchrl.samplers import BalancedTrajectorySampler

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


@pytest.mark.parametrize("consumed", [0, 2, 5, 9])
@pytest.mark.parametrize("epoch", ["total", "larger"])
def test_state_dict_continues_identically(consumed, epoch):
    buffer = buffer_of(decisions_of(MIXED), 7, BalancedTrajectorySampler(epoch=epoch, seed=0))
    for _ in range(consumed):
        buffer.sample()
    state = pickle.loads(pickle.dumps(buffer.state_dict()))
    restored = buffer_of(decisions_of(MIXED), 7, BalancedTrajectorySampler(epoch=epoch, seed=9))
    restored.load_state_dict(state)
    for _ in range(20):
        assert restored.sample()["index"].tolist() == buffer.sample()["index"].tolist()
        assert restored.sampler.ran_out == buffer.sampler.ran_out


@pytest.mark.parametrize("consumed", [0, 3])
def test_dumps_and_loads_continue_identically(tmp_path, consumed):
    buffer = buffer_of(decisions_of(MIXED), 7, BalancedTrajectorySampler(seed=0))
    for _ in range(consumed):
        buffer.sample()
    buffer.dumps(tmp_path)
    restored = buffer_of(decisions_of(MIXED[:2]), 7, BalancedTrajectorySampler(seed=9), 40)
    restored.loads(tmp_path)
    for _ in range(12):
        assert restored.sample()["index"].tolist() == buffer.sample()["index"].tolist()


def test_a_loaded_state_is_not_tied_to_the_sampler_it_came_from():
    buffer = buffer_of(decisions_of(MIXED), 7, BalancedTrajectorySampler(seed=0))
    buffer.sample()
    state = buffer.sampler.state_dict()
    expected = [buffer.sample()["index"].tolist() for _ in range(12)]
    for _ in range(2):
        buffer.sampler.load_state_dict(state)
        assert [buffer.sample()["index"].tolist() for _ in range(12)] == expected


def test_pickled_sampler_continues_identically():
    buffer = buffer_of(decisions_of(MIXED), 8, BalancedTrajectorySampler(seed=0))
    buffer.sample()
    copy = pickle.loads(pickle.dumps(buffer.sampler))
    storage = buffer.storage
    for _ in range(8):
        expected = buffer.sampler.sample(storage, 8)[0]
        assert copy.sample(storage, 8)[0].tolist() == expected.tolist()


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
    for _ in range(4):
        buffer.add(decisions_of([(False, 0, 1)], first_id=9)[0])
    success = buffer.storage[:]["trajectory_success"]
    drawn = torch.cat([torch.tensor(batch) for batch in quiet_epoch(buffer)])
    assert success.sum() == 4
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
    assert batches == quiet_epoch(
        buffer_of(decisions_of(MIXED), 8, BalancedTrajectorySampler(seed=0))
    )


def test_memmap_storage(tmp_path):
    buffer = TensorDictReplayBuffer(
        storage=LazyMemmapStorage(40, scratch_dir=tmp_path),
        sampler=BalancedTrajectorySampler(seed=0),
        batch_size=8,
    )
    buffer.extend(decisions_of(MIXED))
    assert [int(batch["trajectory_success"].sum()) for batch in buffer] == [4] * 5


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


def test_flat_keys_and_other_names_are_read():
    decisions = TensorDict(
        {"won": torch.tensor([True, False, False]), "episode": torch.arange(3)}, [3]
    )
    sampler = BalancedTrajectorySampler("won", "episode", None, seed=0)
    buffer = buffer_of(decisions, 2, sampler)
    assert buffer.sample()["won"].sum() == 1


def _sampler(**options):
    return BalancedTrajectorySampler(seed=0, **options)


GOOD = decisions_of([(True, 0, 2), (False, 0, 2)])
MISSING = (
    "{key} is not in the storage, which has {available}. Write it to every decision before "
    "extending the buffer (rftf_torchrl.transforms.label_outcomes writes the outcome, once the "
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
    buffer = TensorDictReplayBuffer(storage=ListStorage(4), sampler=_sampler(), batch_size=2)
    buffer.extend(GOOD.clone())
    message = (
        "the storage holds a list; expected a tensordict. Use LazyTensorStorage or "
        "LazyMemmapStorage."
    )
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
