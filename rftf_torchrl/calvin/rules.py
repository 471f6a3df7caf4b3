"""Which task can follow which: CALVIN's symbolic rules, from which the benchmark's chains come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, TypeAlias

from rftf_torchrl.calvin.tasks import BLOCKS, TASKS, get_task

State: TypeAlias = dict[str, Any]
Rule: TypeAlias = tuple[State, State]

_OTHER_SIDE = {"left": "right", "right": "left"}


def outcomes(state: Mapping[str, Any], task: str) -> list[State]:
    """The symbolic states in which a task can end; none if it can't be done from this state.

    A chain of the benchmark is made of tasks with exactly one outcome. The rules are CALVIN's, with
    their quirks: a lamp, say, can't be switched while a block is held.

    Source: Mees et al., "CALVIN", arXiv 2112.03227; ``multistep_sequences.py`` of its code.

    Args:
        state: values of ``led``, ``lightbulb``, ``slider``, ``drawer``, ``red_block``,
            ``blue_block``, ``pink_block`` and ``grasped``.
        task: CALVIN's name.

    Raises:
        ValueError: for an unknown task.

    Example:
        >>> outcomes({"drawer": "closed", "grasped": 0}, "open_drawer")
        [{'drawer': 'open', 'grasped': 0}]
        >>> outcomes({"drawer": "open", "grasped": 0}, "open_drawer")
        []
    """
    get_task(task)
    return [{**state, **effect} for condition, effect in _RULES[task] if _holds(state, condition)]


def _holds(state: Mapping[str, Any], condition: State) -> bool:
    return all(
        state[name] in value if isinstance(value, tuple) else state[name] == value
        for name, value in condition.items()
    )


def _with_free_hand() -> Iterator[tuple[str, State, State]]:
    for block in BLOCKS:
        here = f"{block}_block"
        for side in ("left", "right"):
            for move in ("rotate", "push"):
                yield f"{move}_{here}_{side}", {here: "table"}, {here: "table"}
        held = {here: "grasped", "grasped": 1}
        yield f"lift_{here}_table", {here: "table"}, held
        yield f"lift_{here}_drawer", {here: "drawer", "drawer": "open"}, held
        for side, door in _OTHER_SIDE.items():
            yield f"lift_{here}_slider", {here: f"slider_{side}", "slider": door}, held
        others = {f"{b}_block": ("slider_right", "slider_left") for b in BLOCKS if b != block}
        pushed = {here: "drawer", "grasped": 0}
        yield "push_into_drawer", {here: "table", **others, "drawer": "open"}, pushed
    for side, other in _OTHER_SIDE.items():
        yield f"move_slider_{side}", {"slider": other}, {"slider": side}
    yield "open_drawer", {"drawer": "closed"}, {"drawer": "open"}
    yield "close_drawer", {"drawer": "open"}, {"drawer": "closed"}
    for lamp in ("lightbulb", "led"):
        yield f"turn_on_{lamp}", {lamp: 0}, {lamp: 1}
        yield f"turn_off_{lamp}", {lamp: 1}, {lamp: 0}
    for top, bottom in permutations((f"{block}_block" for block in BLOCKS), 2):
        stacked = {top: "stacked_top", bottom: "stacked_bottom"}
        yield "unstack_block", stacked, {top: "table", bottom: "table"}


def _with_a_held_block() -> Iterator[tuple[str, State, State]]:
    for block in (f"{block}_block" for block in BLOCKS):
        held = {block: "grasped"}
        for side in ("right", "left"):
            yield "place_in_slider", {**held, "slider": side}, {block: f"slider_{side}"}
        yield "place_in_drawer", {**held, "drawer": "open"}, {block: "drawer"}
    for top, bottom in permutations((f"{block}_block" for block in BLOCKS), 2):
        stacked = {top: "stacked_top", bottom: "stacked_bottom"}
        yield "stack_block", {top: "grasped", bottom: "table"}, stacked


def _rules() -> dict[str, list[Rule]]:
    rules: dict[str, list[Rule]] = {name: [] for name in TASKS}
    for name, condition, effect in _with_free_hand():
        rules[name].append(({**condition, "grasped": 0}, effect))
    for name, condition, effect in _with_a_held_block():
        rules[name].append(({**condition, "grasped": 1}, {**effect, "grasped": 0}))
    return rules


_RULES = _rules()
