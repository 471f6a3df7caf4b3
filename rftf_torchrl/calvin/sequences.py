"""Chains of five tasks: the thousand of the benchmark, and others for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from rftf_torchrl.calvin.rules import outcomes
from rftf_torchrl.calvin.tasks import TASKS

CHAIN_LENGTH = 5
"""Tasks of a chain."""

BENCHMARK_CHAINS = 1000
"""Chains of the benchmark."""

_NAMES = tuple(TASKS)
_TABLE = Path(__file__).with_name("benchmark_chains.txt")
"""The benchmark's chains as :func:`generate_chains` draws them, state by state: five letters a
chain, each its task's number in base 36."""
_KINDS = np.unique([task.category for task in TASKS.values()], return_inverse=True)[1]


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
        return vars(self).copy()


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
    blocks = [
        lie
        for lie in product(places, repeat=3)
        if lie.count("table") in (1, 2) and max(map(lie.count, places[1:])) < 2
    ]
    values = product((0, 1), (0, 1), ("right", "left"), ("closed", "open"), blocks)
    return tuple(
        InitialState(led, bulb, slider, drawer, red, blue, pink)
        for led, bulb, slider, drawer, (red, blue, pink) in values
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
    """Draw the benchmark's chains of one initial state, before the benchmark's shuffle.

    With the state's number as NumPy's legacy seed, five of the 34 tasks are drawn without
    replacement until they make a valid chain. That takes about 5,000 draws a chain, so
    :func:`benchmark_sequences` reads the result from a table instead.

    Source: Mees et al., "CALVIN", arXiv 2112.03227; ``multistep_sequences.py`` of its code.

    Args:
        number: position in :func:`initial_states`.
        count: how many chains; the benchmark takes six of states 0 to 39, and five of the others.

    Returns:
        The chains; asking for more continues the list.

    Example:
        >>> generate_chains(188, 1)[0].tasks[:2]
        ('move_slider_right', 'rotate_pink_block_right')
    """
    state = initial_states()[number]
    draws = np.random.RandomState(number)
    chains: list[Chain] = []
    while len(chains) < count:
        drawn = np.stack([draws.permutation(len(_NAMES))[:CHAIN_LENGTH] for _ in range(1024)])
        chains += _valid_chains(state, drawn)
    return chains[:count]


@cache
def _benchmark() -> tuple[Chain, ...]:
    counts = [
        len(part) for part in np.array_split(np.arange(BENCHMARK_CHAINS), len(initial_states()))
    ]
    states = [state for state, n in zip(initial_states(), counts, strict=True) for _ in range(n)]
    order = np.arange(BENCHMARK_CHAINS)
    np.random.RandomState(0).shuffle(order)
    words = _TABLE.read_text(encoding="utf-8").split()
    return tuple(
        Chain(states[k], tuple(_NAMES[int(letter, 36)] for letter in words[k])) for k in order
    )


def benchmark_sequences(count: int = BENCHMARK_CHAINS) -> list[Chain]:
    """The first chains of the benchmark's thousand, equal to those of CALVIN's own code.

    Source: Mees et al., "CALVIN", arXiv 2112.03227; ``get_sequences(1000)`` of its code.

    Args:
        count: how many, from 1 to 1000. A result on fewer than 1000 is not the benchmark's.

    Raises:
        ValueError: for another count.

    Example:
        >>> benchmark_sequences(1)[0].tasks[:2]
        ('rotate_blue_block_right', 'move_slider_right')
    """
    if not 1 <= count <= BENCHMARK_CHAINS:
        raise ValueError(
            f"count is {count}; expected 1 to {BENCHMARK_CHAINS}, as the benchmark has no more."
        )
    return list(_benchmark()[:count])


@cache
def benchmark_set() -> frozenset[Chain]:
    """The benchmark's thousand, to look a chain up."""
    return frozenset(_benchmark())


def training_sequences(seed: int, count: int) -> list[Chain]:
    """Draw chains that the benchmark does not have.

    Initial states are uniform, and so are the chains of a state, as in the benchmark. The initial
    states themselves are the benchmark's: what differs in training are the tasks' combinations, and
    the positions and angles of :func:`~rftf_torchrl.training_scene`.

    Args:
        seed: 0 or more; the same seed continues the same list.
        count: how many.

    Raises:
        ValueError: for a negative seed or count.

    Example:
        >>> set(training_sequences(0, 20)) & set(benchmark_sequences())
        set()
    """
    if seed < 0 or count < 0:
        raise ValueError(f"seed and count must be 0 or more, got {seed} and {count}")
    return list(islice(training_chains(seed), count))


def training_chains(seed: int) -> Iterator[Chain]:
    """The chains of :func:`training_sequences`, without an end."""
    rng = np.random.default_rng(seed)
    refused = benchmark_set()
    while True:
        chain = _draw(rng)
        if chain not in refused:
            yield chain


def _draw(rng: np.random.Generator) -> Chain:
    state = initial_states()[rng.integers(len(initial_states()))]
    while True:
        drawn = rng.integers(len(_NAMES), size=(4096, CHAIN_LENGTH))
        for chain in _valid_chains(state, drawn):
            return chain


def _valid_chains(state: InitialState, drawn: np.ndarray) -> Iterator[Chain]:
    """The valid chains among rows [N, 5] of task numbers."""
    start = state.to_dict()
    first = np.array([len(outcomes(start, name)) == 1 for name in _NAMES])
    kinds = np.sort(_KINDS[drawn], axis=1)
    promising = first[drawn[:, 0]] & (np.diff(kinds, axis=1) > 0).all(axis=1)
    for row in drawn[promising]:
        chain = Chain(state, tuple(_NAMES[k] for k in row))
        if is_valid_chain(chain):
            yield chain
