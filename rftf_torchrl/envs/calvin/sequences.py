"""Chains of five tasks: the thousand of the benchmark, and others for training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from rftf_torchrl.envs.calvin._benchmark import TABLE
from rftf_torchrl.envs.calvin.rules import outcomes
from rftf_torchrl.envs.calvin.tasks import TASKS

__all__ = [
    "BENCHMARK_CHAINS",
    "CHAIN_LENGTH",
    "Chain",
    "InitialState",
    "benchmark_sequences",
    "generate_chains",
    "initial_states",
    "is_valid_chain",
    "starting_states",
    "training_sequences",
]

CHAIN_LENGTH = 5
"""Tasks of a chain."""

BENCHMARK_CHAINS = 1000
"""Chains of the benchmark."""

_NAMES = tuple(TASKS)
_CATEGORIES = tuple(task.category for task in TASKS.values())


@dataclass(frozen=True)
class InitialState:
    """Where a chain begins, in words.

    Attributes:
        led: 1 where the green lamp is on.
        lightbulb: 1 where the yellow lamp is on.
        slider: where the sliding door is, ``"left"`` or ``"right"``.
        drawer: ``"open"`` or ``"closed"``.
        red_block: ``"table"``, ``"slider_left"`` or ``"slider_right"``.
        blue_block: the same.
        pink_block: the same.
        grasped: 0, as no chain begins with a block in the hand.
    """

    led: int
    lightbulb: int
    slider: str
    drawer: str
    red_block: str
    blue_block: str
    pink_block: str
    grasped: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The values by name, in the benchmark's order."""
        return asdict(self)


@dataclass(frozen=True)
class Chain:
    """Five tasks in a row.

    Attributes:
        initial_state: where it begins.
        tasks: CALVIN's names of the tasks.
    """

    initial_state: InitialState
    tasks: tuple[str, ...]


@cache
def initial_states() -> tuple[InitialState, ...]:
    """The 192 initial states of the benchmark, in its order.

    All values of the two lamps, the door and the drawer, with one or two blocks on the table and at
    most one on each side of the cabinet.

    Example:
        >>> len(initial_states())
        192
    """
    places = ("table", "slider_right", "slider_left")
    values = product((0, 1), (0, 1), ("right", "left"), ("closed", "open"), *[places] * 3)
    return tuple(
        InitialState(*state)
        for state in values
        if state.count("table") in (1, 2) and max(map(state.count, places[1:])) < 2
    )


def starting_states(task: str) -> tuple[InitialState, ...]:
    """The initial states from which a task can be the first of a chain, maybe none.

    Args:
        task: CALVIN's name.

    Raises:
        ValueError: for an unknown task.

    Example:
        >>> len(starting_states("open_drawer")), len(starting_states("stack_block"))
        (96, 0)
    """
    return tuple(s for s in initial_states() if len(outcomes(s.to_dict(), task)) == 1)


def is_valid_chain(chain: Chain) -> bool:
    """Whether each task has exactly one outcome and no two tasks are of the same kind.

    Raises:
        ValueError: for an unknown task.
    """
    state = chain.initial_state.to_dict()
    for task in chain.tasks:
        reached = outcomes(state, task)
        if len(reached) != 1:
            return False
        state = reached[0]
    return len({TASKS[task].category for task in chain.tasks}) == len(chain.tasks)


def generate_chains(number: int, count: int) -> list[Chain]:
    """Draw chains as the benchmark does: those of one initial state, before the benchmark's shuffle.

    With the state's number as NumPy's legacy seed, five of the 34 tasks are drawn without
    replacement until they make a valid chain. It takes some 5,000 draws, about 10 ms, for each
    chain; :func:`benchmark_sequences` reads the result from a table instead.

    Source: Mees et al., "CALVIN", arXiv 2112.03227; ``multistep_sequences.py`` of its code.

    Args:
        number: position in :func:`initial_states`.
        count: how many chains; the benchmark takes six of states 0 to 39, and five of the others.

    Returns:
        The chains; asking for more continues the list.

    Example:
        >>> generate_chains(0, 1)[0].tasks == BENCHMARK[0].tasks
        True
    """
    state = initial_states()[number]
    start = state.to_dict()
    first = {k for k, name in enumerate(_NAMES) if len(outcomes(start, name)) == 1}
    draws = np.random.RandomState(number)
    chains: list[Chain] = []
    while len(chains) < count:
        drawn = draws.permutation(len(_NAMES))
        if drawn[0] not in first:
            continue
        kinds = {_CATEGORIES[k] for k in drawn[:CHAIN_LENGTH]}
        if len(kinds) < CHAIN_LENGTH:
            continue
        chain = Chain(state, tuple(_NAMES[k] for k in drawn[:CHAIN_LENGTH]))
        if is_valid_chain(chain):
            chains.append(chain)
    return chains
