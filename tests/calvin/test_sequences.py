"""The benchmark's chains against those that CALVIN's own code prints, and chains for training."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rftf_torchrl import (
    Chain,
    benchmark_sequences,
    generate_chains,
    initial_states,
    is_valid_chain,
    outcomes,
    starting_states,
    training_sequences,
)

OFFICIAL = json.loads(
    (Path(__file__).parent / "sequences_first200.json").read_text(encoding="utf-8")
)


def test_the_first_200_chains_are_the_official_ones():
    ours = [
        {"initial_state": chain.initial_state.to_dict(), "tasks": list(chain.tasks)}
        for chain in benchmark_sequences(200)
    ]
    assert ours == OFFICIAL
    assert list(ours[0]["initial_state"]) == list(OFFICIAL[0]["initial_state"])


def test_a_thousand_valid_chains_five_or_six_for_each_initial_state():
    chains = benchmark_sequences()
    assert len(chains) == 1000
    assert all(is_valid_chain(chain) for chain in chains)
    counts = Counter(chain.initial_state for chain in chains)
    assert [counts[state] for state in initial_states()] == [6] * 40 + [5] * 152


@pytest.mark.parametrize(
    "number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(16, 192, 16))]
)
def test_the_table_holds_what_is_generated(number):
    state = initial_states()[number]
    table = {chain.tasks for chain in benchmark_sequences() if chain.initial_state == state}
    assert {chain.tasks for chain in generate_chains(number, len(table))} == table


def test_generating_leaves_numpys_global_state_alone():
    np.random.seed(3)
    expected = np.random.RandomState(3).rand(2)
    first = np.random.rand()
    generate_chains(0, 1)
    assert [first, np.random.rand()] == list(expected)


@pytest.mark.parametrize("count", [0, 1001])
def test_the_benchmark_has_a_thousand(count):
    message = f"count is {count}; expected 1 to 1000, as the benchmark has no more"
    with pytest.raises(ValueError, match=message):
        benchmark_sequences(count)


def test_training_chains_are_none_of_the_benchmarks():
    chains = training_sequences(0, 60)
    assert all(is_valid_chain(chain) for chain in chains)
    assert not set(chains) & set(benchmark_sequences())
    assert len(set(chains)) > 55


def test_the_same_seed_continues_the_same_list():
    assert training_sequences(5, 3) == training_sequences(5, 4)[:3]
    assert training_sequences(5, 3) != training_sequences(6, 3)


def test_training_refuses_negative_numbers():
    with pytest.raises(ValueError, match="seed and count must be 0 or more, got -1 and 2"):
        training_sequences(-1, 2)


def test_held_blocks_can_be_put_down_and_nothing_else():
    held = {**initial_states()[0].to_dict(), "red_block": "grasped", "grasped": 1}
    assert [end["red_block"] for end in outcomes(held, "place_in_slider")] == ["slider_right"]
    assert outcomes(held, "place_in_drawer") == []
    assert outcomes(held, "turn_on_led") == []


def test_pushing_into_the_drawer_needs_a_lonely_block():
    lonely = {"red_block": "table", "blue_block": "slider_left", "pink_block": "slider_right"}
    state = {**initial_states()[0].to_dict(), **lonely, "drawer": "open"}
    assert [end["red_block"] for end in outcomes(state, "push_into_drawer")] == ["drawer"]
    assert outcomes({**state, "blue_block": "table"}, "push_into_drawer") == []


def test_a_chain_is_invalid_where_a_kind_repeats_or_a_task_can_not_be_done():
    state = initial_states()[0]
    assert state.led == 0
    assert state.lightbulb == 0
    assert not is_valid_chain(Chain(state, ("turn_on_led", "turn_on_lightbulb")))
    assert not is_valid_chain(Chain(state, ("turn_off_led",)))
    assert is_valid_chain(Chain(state, ("turn_on_led",)))


def test_starting_states_are_those_where_the_task_is_possible():
    assert all(state.slider == "right" for state in starting_states("move_slider_left"))
    assert len(starting_states("move_slider_left")) == 96
    assert starting_states("unstack_block") == ()


@pytest.mark.parametrize("function", [starting_states, lambda t: outcomes({}, t)])
def test_unknown_task(function):
    with pytest.raises(ValueError, match="unknown CALVIN task 'fly'; choose from"):
        function("fly")
