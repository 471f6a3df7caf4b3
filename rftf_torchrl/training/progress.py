"""How far a run is and where its time goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


def progress_bar(
    iterable_or_total: Iterable[Any] | int, desc: str, *, show: bool | None = None
) -> tqdm:
    """A progress bar with the time left.

    Args:
        iterable_or_total: what to go through, or the number of steps that ``update()`` will count.
        desc: what is going on, in a word or two.
        show: False shows nothing. None shows the bar where stderr is a terminal.

    Returns:
        The bar: go through it, or call its ``update()``; ``set_postfix(loss=...)`` shows numbers.

    Example:
        >>> list(progress_bar(range(3), "count", show=False))
        [0, 1, 2]
    """
    disable = None if show is None else not show
    if isinstance(iterable_or_total, int):
        return tqdm(total=iterable_or_total, desc=desc, disable=disable, dynamic_ncols=True)
    return tqdm(iterable_or_total, desc=desc, disable=disable, dynamic_ncols=True)


class PhaseClock:
    """Add up the wall time of named phases.

    CUDA runs behind Python: a phase that waits for a result, by ``.item()`` for one, is charged for
    the work that was queued before it.

    Example:
        >>> clock = PhaseClock()
        >>> with clock("collect"):
        ...     total = sum(range(1000))
        >>> list(clock.seconds), clock.seconds["collect"] > 0
        (['collect'], True)
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each phase so far, in the order of first use."""
        return dict(self._seconds)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charge the time inside the ``with`` block to ``phase``, also where it raises.

        Args:
            phase: the name.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - start
