"""How far a run is and where its time goes."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rftf_torchrl.digests import read_record, write_record

logger = logging.getLogger(__name__)


class ProgressBar(tqdm):
    """A bar on a terminal, and a sentence for a log."""

    def __init__(self, *args: Any, shown: bool, **kwargs: Any) -> None:
        self.shown = shown
        super().__init__(*args, **kwargs)

    def display(self, *args: Any, **kwargs: Any) -> None:
        """Draw the bar, where bars are shown."""
        if self.shown:
            super().display(*args, **kwargs)

    def close(self) -> None:
        """Say how far it came."""
        if not self.disable:
            logger.info("%s", self.sentence())
        super().close()

    def sentence(self) -> str:
        """Count, rate, time left, and the numbers of ``set_postfix``."""
        seen = self.format_dict
        done, total, seconds = seen["n"], seen["total"], seen["elapsed"]
        count = f"{done}" if total is None else f"{done} of {total}"
        parts = [f"{self.desc}: {count} {self.unit.strip()} in {duration(seconds)}"]
        if done and seconds:
            rate = done / seconds
            parts.append(f"{rate:.1f} a second" if rate >= 1 else f"{duration(1 / rate)} each")
            if total is not None and done < total:
                parts.append(f"about {duration((total - done) / rate)} left")
        if self.postfix:
            parts.append(self.postfix.replace("=", " "))
        return ", ".join(parts)


def progress_bar(
    iterable_or_total: Iterable[Any] | int,
    desc: str,
    *,
    unit: str = "steps",
    show: bool | None = None,
) -> tqdm:
    """A progress bar with the time left; its end is logged as a sentence.

    The recipes log how far an open bar is too, see ``rftf_torchrl.training.run_log``.

    Args:
        iterable_or_total: what to go through, or the number of steps that ``update()`` will count.
        desc: what is going on, in a word or two.
        unit: what is counted, in the plural.
        show: False shows and logs nothing. None shows the bar where stderr is a terminal.

    Returns:
        The bar: go through it, or call its ``update()``; ``set_postfix(loss=...)`` shows numbers.

    Example:
        >>> list(progress_bar(range(3), "count", show=False))
        [0, 1, 2]
    """
    counted = isinstance(iterable_or_total, int)
    what = {"total" if counted else "iterable": iterable_or_total, "desc": desc}
    shown = sys.stderr.isatty() if show is None else show
    return ProgressBar(
        **what,
        unit=f" {unit}",
        disable=show is False,
        dynamic_ncols=True,
        shown=shown,
        file=None if shown else io.StringIO(),
    )


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> duration(3.21), duration(245), duration(8000)
        ('3.2 s', '4 min 5 s', '2 h 13 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class PhaseClock:
    """Add up the wall time of named phases.

    CUDA runs behind Python: a phase that waits for a result, by ``.item()`` for one, is charged for
    the work that was queued before it.

    Args:
        file: keeps the seconds after each phase, so that a resumed run adds to those before.

    Example:
        >>> clock = PhaseClock()
        >>> with clock("collect"):
        ...     total = sum(range(1000))
        >>> list(clock.seconds), clock.seconds["collect"] > 0
        (['collect'], True)
    """

    def __init__(self, file: Path | None = None) -> None:
        earlier = read_record(file) if file is not None and file.is_file() else {}
        self._file = file
        self._seconds: dict[str, float] = defaultdict(float, earlier)

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
            if self._file is not None:
                write_record(self._file, self.seconds)
