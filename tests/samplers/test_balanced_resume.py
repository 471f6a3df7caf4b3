"""A saved, loaded or pickled BalancedTrajectorySampler continues identically."""

import pickle

import pytest
from _outcome_buffers import MIXED, buffer_of, decisions_of

from rftf_torchrl import BalancedTrajectorySampler


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


def test_a_write_after_the_last_sample_is_remembered():
    first, second = [(True, 0, 4), (False, 0, 4)], [(False, 0, 4), (True, 0, 4)]
    buffer = buffer_of(decisions_of(first), 2, BalancedTrajectorySampler(seed=0))
    buffer.sample()
    buffer.extend(decisions_of(second, first_id=2))
    state = pickle.loads(pickle.dumps(buffer.state_dict()))
    restored = buffer_of(decisions_of(first), 2, BalancedTrajectorySampler(seed=9))
    restored.load_state_dict(state)
    for _ in range(8):
        assert restored.sample()["index"].tolist() == buffer.sample()["index"].tolist()


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
