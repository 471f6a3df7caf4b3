"""Which goals LIBERO's expert takes on, and in which order."""

from __future__ import annotations

import re

import pytest

from rftf_torchrl.errors import UserError
from rftf_torchrl.libero.expert.plan import order
from rftf_torchrl.libero.install import libero_module
from rftf_torchrl.libero.suites import TRAINED, libero_tasks, task_file


def test_a_drawer_is_closed_after_something_is_put_in():
    close, put = ["close", "cabinet_bottom_region"], ["in", "bowl", "cabinet_bottom_region"]
    assert order([close, put]) == [put, close]


def test_a_microwave_is_closed_after_something_is_put_in():
    close, put = ["close", "microwave_1"], ["in", "mug", "microwave_1_heating_region"]
    assert order([close, put]) == [put, close]


def test_a_drawer_in_the_way_is_closed_before_another_one_is_opened():
    close, open_ = ["close", "cabinet_bottom_region"], ["open", "cabinet_top_region"]
    assert order([open_, close]) == [close, open_]


def test_a_stove_is_turned_on_before_something_stands_on_it():
    turn, put = ["turnon", "stove"], ["on", "pot", "stove_cook_region"]
    assert order([put, turn]) == [turn, put]


def test_what_carries_something_moves_first():
    stack, move = ["on", "bowl_1", "bowl_2"], ["in", "bowl_2", "tray_contain_region"]
    assert order([stack, move]) == [move, stack]


def test_goals_of_the_same_kind_keep_their_order():
    goals = [["in", thing, "basket_contain_region"] for thing in ("soup", "cheese")]
    assert order(goals) == goals


def test_an_unknown_predicate_is_named():
    with pytest.raises(
        UserError,
        match=re.escape(
            "LIBERO's scripted expert has no skill for the predicate 'stack' of the goal (stack "
            "bowl_1 bowl_2); it knows on, in, open, close, turnon, turnoff"
        ),
    ):
        order([["on", "bowl_1", "plate_1"], ["stack", "bowl_1", "bowl_2"]])


@pytest.mark.libero
@pytest.mark.parametrize("suite", TRAINED)
def test_every_goal_of_a_suite_has_a_place_in_the_order(suite):
    parse = libero_module("libero.libero.envs.bddl_utils").robosuite_parse_problem
    for task in libero_tasks(suite):
        goals = parse(str(task_file(suite, task)))["goal_state"]
        assert goals
        assert sorted(order(goals)) == sorted(goals)
