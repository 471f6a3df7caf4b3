"""Which tasks the expert can do from a state."""

from __future__ import annotations

import pytest
from _expert_views import BLUE, RED, ROBOT, TABLE, an_info, contact

from rftf_torchrl import feasible
from rftf_torchrl.calvin.tasks import TASKS

HELD = {"red": [contact(ROBOT, 10)]}
IN_DRAWER = {"red": [contact(TABLE, 3)]}
ON_SHELF = {"red": [contact(TABLE, 6)]}
STACKED = {"red": [contact(BLUE)], "blue": [contact(TABLE), contact(RED)]}

FEASIBLE = [
    ("open_drawer", {}, {"drawer": 0.22}),
    ("move_slider_left", {}, {"slider": 0.28}),
    ("lift_red_block_table", {}, {"contacts": IN_DRAWER}),
    ("lift_red_block_drawer", {"contacts": IN_DRAWER}, {}),
    ("lift_red_block_slider", {"contacts": ON_SHELF}, {}),
    ("push_red_block_left", {}, {"contacts": HELD}),
    ("turn_on_led", {"led": 0}, {"led": 1}),
    ("turn_off_led", {"led": 1}, {"led": 0}),
    ("turn_off_lightbulb", {"lightbulb": 1}, {"lightbulb": 0}),
    ("place_in_slider", {"contacts": HELD, "robot": [RED]}, {}),
    (
        "place_in_drawer",
        {"contacts": HELD, "robot": [RED], "drawer": 0.2},
        {"contacts": HELD, "robot": [RED], "drawer": 0.0},
    ),
    ("place_in_slider", {"contacts": HELD, "robot": [RED]}, {"contacts": HELD, "robot": [RED, 1]}),
    ("push_into_drawer", {"drawer": 0.2}, {"drawer": 0.0}),
    ("unstack_block", {"contacts": STACKED}, {}),
]


@pytest.mark.parametrize(("task", "can", "cannot"), FEASIBLE)
def test_feasible(task, can, cannot):
    assert feasible(task, an_info(**can))
    assert not feasible(task, an_info(**cannot))


@pytest.mark.parametrize("scene", "ABCD")
def test_feasible_answers_for_every_task(scene):
    answers = {task: feasible(task, an_info(), scene) for task in TASKS}
    assert answers["move_slider_left"]
    assert not answers["move_slider_right"]


def test_feasible_refuses_an_unknown_task():
    with pytest.raises(ValueError, match="unknown CALVIN task 'fly'"):
        feasible("fly", an_info())
