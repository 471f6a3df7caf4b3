"""Index maths of the balanced sampler: partition, counts, walks and spread."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rftf_torchrl import (
    OutcomePools,
    find_mixed_trajectory,
    outcome_pools,
    pairs_per_task,
    spread_evenly,
    walk_pool,
)

fast = settings(max_examples=60, deadline=None)


@fast
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=40))
def test_pools_partition_the_decisions(decisions):
    success = torch.tensor([outcome for outcome, _ in decisions])
    task = torch.tensor([name for _, name in decisions])
    pools = outcome_pools(success, task)
    assert len(pools) == len(set(task.tolist()))
    everything = torch.cat([index for pool in pools for index in pool])
    assert sorted(everything.tolist()) == list(range(len(decisions)))
    for name, pool in zip(sorted(set(task.tolist())), pools, strict=True):
        assert success[pool.success].all()
        assert not success[pool.failure].any()
        assert (task[torch.cat(pool)] == name).all()


def test_pools_without_task():
    (pool,) = outcome_pools(torch.tensor([True, False, True]))
    assert (pool.success.tolist(), pool.failure.tolist()) == ([0, 2], [1])
    assert (pool.mixed, pool.decisions) == (True, 3)


def test_find_mixed_trajectory():
    trajectory = torch.tensor([4, 4, 9, 7, 7])
    assert find_mixed_trajectory(torch.tensor([True, True, False, True, True]), trajectory) is None
    assert find_mixed_trajectory(torch.tensor([True, True, False, True, False]), trajectory) == 7


def pools_of(*sizes):
    return [OutcomePools(torch.arange(s), torch.arange(f)) for s, f in sizes]


@pytest.mark.parametrize(
    ("sizes", "epoch", "offset", "expected"),
    [
        ([], "total", 0, ([], None)),
        ([(2, 4)], "total", 0, ([3], None)),
        ([(2, 5)], "total", 0, ([3], 0)),
        ([(1, 2), (3, 2), (1, 1)], "total", 0, ([2, 2, 1], None)),
        ([(1, 2), (3, 2), (1, 1)], "total", 1, ([1, 3, 1], None)),
        ([(1, 2), (3, 2), (1, 4)], "total", 0, ([2, 2, 2], 1)),
        ([(1, 2), (3, 2), (1, 4)], "total", 2, ([1, 2, 3], 0)),
        ([(2, 5), (4, 1)], "larger", 3, ([5, 4], None)),
    ],
)
def test_pairs_per_task(sizes, epoch, offset, expected):
    assert pairs_per_task(pools_of(*sizes), epoch, offset) == expected


@fast
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=8), st.integers(0, 20))
def test_total_epoch_keeps_the_number_of_draws(sizes, offset):
    pairs, half = pairs_per_task(pools_of(*sizes), "total", offset)
    assert 2 * sum(pairs) + (half is not None) == sum(s + f for s, f in sizes)
    assert all(abs(2 * k - (s + f)) <= 1 for k, (s, f) in zip(pairs, sizes, strict=True))


@fast
@given(
    st.integers(1, 12),
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_walk_visits_every_index_equally_often(size, counts, seed):
    generator = torch.Generator().manual_seed(seed)
    order, cursor = torch.arange(100, 100 + size), size
    walked = []
    for count in counts:
        drawn, order, cursor = walk_pool(order, cursor, count, generator)
        visits = torch.bincount(drawn - 100, minlength=size)
        assert len(drawn) == count
        assert visits.max() - visits.min() <= 1
        walked += drawn.tolist()
    for start in range(0, len(walked) - size + 1, size):
        assert len(set(walked[start : start + size])) == size


def test_walk_without_shuffle_repeats_the_order():
    drawn, order, cursor = walk_pool(torch.tensor([5, 6, 7]), 2, 8, shuffle=False)
    assert drawn.tolist() == [7, 5, 6, 7, 5, 6, 7, 5]
    assert (order.tolist(), cursor) == ([5, 6, 7], 1)


def test_walk_shuffles_uniformly():
    generator = torch.Generator().manual_seed(0)
    first = [walk_pool(torch.arange(4), 4, 1, generator)[0].item() for _ in range(4000)]
    shares = torch.bincount(torch.tensor(first)) / 4000
    assert (shares - 0.25).abs().max() < 0.03


@fast
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 1000), st.data())
def test_every_stretch_holds_each_groups_share(counts, seed, data):
    order = spread_evenly(counts, torch.Generator().manual_seed(seed))
    total = sum(counts)
    assert sorted(order.tolist()) == list(range(total))
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    found = torch.bincount(group[order[start:stop]], minlength=len(counts))
    for count, inside in zip(counts, found.tolist(), strict=True):
        share = count / total if total else 0.0
        assert abs(inside - share * (stop - start)) <= 1 + share * len(counts) + 1e-9


FLAGS, IDS = torch.tensor([True, False]), torch.tensor([0, 1])
BROKEN = [
    (
        ValueError,
        lambda: outcome_pools(FLAGS, torch.zeros(3, dtype=torch.int64)),
        "task has shape [3] and success has shape [2]; expected the same shape.",
    ),
    (
        ValueError,
        lambda: outcome_pools(FLAGS.unsqueeze(-1)),
        "success has shape [2, 1]; expected [N].",
    ),
    (
        TypeError,
        lambda: find_mixed_trajectory(IDS, IDS),
        "success has dtype torch.int64; expected torch.bool. Convert it with success.bool().",
    ),
    (
        ValueError,
        lambda: pairs_per_task([], "smaller"),
        "epoch is 'smaller'; expected 'total' or 'larger'.",
    ),
    (
        ValueError,
        lambda: walk_pool(IDS, 3, 1),
        "cursor is 3 for order of shape [2]; expected a pool that is not empty and a cursor in "
        "[0, n].",
    ),
]


@pytest.mark.parametrize(("error", "call", "message"), BROKEN)
def test_broken_inputs(error, call, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
