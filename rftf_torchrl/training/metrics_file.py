"""``metrics.csv``: one row per step, whole after a kill."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path

from rftf_torchrl.files import append_text, write_text

STEP = "step"
logger = logging.getLogger(__name__)


class MetricsFile:
    """A CSV file with one row per step and the union of all metrics as columns.

    A row is appended in one write; a new column, or more metrics of the same step, rewrite the file
    under a temporary name first. A last line that a kill cut short is dropped when the file is
    opened. The first step that is logged to an existing file removes the rows after it: a resumed
    run replaces what it repeats.

    Args:
        path: the file; it may exist.

    Raises:
        ValueError: where the file exists and is not such a table.

    Example:
        >>> import tempfile
        >>> metrics = MetricsFile(Path(tempfile.mkdtemp()) / "metrics.csv")
        >>> metrics.write(0, {"loss": 0.5})
        >>> metrics.write(1, {"loss": 0.25, "success": 1.0})
        >>> metrics.rows
        [{'step': '0', 'loss': '0.5'}, {'step': '1', 'loss': '0.25', 'success': '1.0'}]
        >>> print(metrics.path.read_text(encoding="utf-8"))
        step,loss,success
        0,0.5,
        1,0.25,1.0
        <BLANKLINE>
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.columns = [STEP]
        self.rows: list[dict[str, str]] = []
        self._resuming = self.path.exists()
        if self._resuming:
            self._read()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row, or add to the row of the same step.

        Args:
            step: the step; it never decreases, except at the first row after a resume.
            metrics: numbers by name.

        Raises:
            ValueError: where the step is before the last one.
        """
        new = [name for name in metrics if name not in self.columns]
        row = {STEP: str(step), **{name: repr(float(value)) for name, value in metrics.items()}}
        last = int(self.rows[-1][STEP]) if self.rows else -1
        if self._resuming:
            kept = [old for old in self.rows if int(old[STEP]) < step]
            dropped = len(self.rows) - len(kept)
            if dropped:
                logger.info("%s: %d rows from step %d on are replaced", self.path, dropped, step)
            self.rows = kept
        elif step < last:
            raise ValueError(
                f"Step {step} comes after step {last} in {self.path}: steps must not decrease."
            )
        self.columns += new
        if not self._resuming and step == last:
            self.rows[-1].update(row)
            rewrite = True
        else:
            rewrite = bool(new) or self._resuming or not self.rows
            self.rows.append(row)
        self._resuming = False
        if rewrite:
            header = {name: name for name in self.columns}
            write_text(self.path, self._text([header, *self.rows]))
        else:
            append_text(self.path, self._text([row]))

    def numbers(self) -> list[tuple[int, dict[str, float]]]:
        """Each row's step and its numbers."""
        return [
            (int(row[STEP]), {name: float(cell) for name, cell in row.items() if name != STEP})
            for row in self.rows
        ]

    def _text(self, rows: list[dict[str, str]]) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        for row in rows:
            writer.writerow([row.get(name, "") for name in self.columns])
        return buffer.getvalue()

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        header, *lines = list(csv.reader(io.StringIO(whole))) or [[]]
        if header[:1] != [STEP] or any(len(line) != len(header) for line in lines):
            raise ValueError(
                f"{self.path} is not a table of metrics (first column '{STEP}'): move it away or "
                "choose another folder."
            )
        self.columns = header
        self.rows = [
            {name: cell for name, cell in zip(header, line, strict=True) if cell} for line in lines
        ]


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Read what a :class:`MetricsFile` wrote.

    Args:
        path: the file.

    Returns:
        The numbers of each step by name, ``"step"`` among them, without those not logged then.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is not such a table.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> MetricsFile(file).write(0, {"loss": 0.5})
        >>> read_metrics(file)
        [{'step': 0.0, 'loss': 0.5}]
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: no metrics were logged there.")
    rows = MetricsFile(path).rows
    return [{name: float(value) for name, value in row.items()} for row in rows]
