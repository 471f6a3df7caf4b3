"""``metrics.csv``: one row per step, whole after a kill."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from rftf_torchrl.digests import canonical_digest
from rftf_torchrl.files import append_text, write_text

STEP = "step"
DIGEST = "digest"
ROW, END = "row", "end"
DIGITS = 16
logger = logging.getLogger(__name__)


class MetricsFile:
    """A CSV file with one row per step and the union of all metrics as columns.

    A row is appended in one write; a new column, or more metrics of the same step, rewrite the file
    under a temporary name first. A last line that a kill cut short is dropped when the file is
    opened. The first step that is logged to an existing file removes the rows after it: a resumed
    run replaces what it repeats.

    The last column is a digest of the row and all rows before it, checked when the file is opened.
    It begins with ``end`` in the row that the run ended with, and with ``row`` in all others. A
    file without that column is taken as it is.

    Args:
        path: the file; it may exist.

    Attributes:
        columns: the names of the columns, without the digest's.
        rows: the cells of each row by column, without the empty ones.
        ended: whether the run ended with the last row; of a file without digests it is assumed.

    Raises:
        ValueError: where the file exists and is not such a table, or a line is damaged.

    Example:
        >>> import tempfile
        >>> metrics = MetricsFile(Path(tempfile.mkdtemp()) / "metrics.csv")
        >>> metrics.write(0, {"loss": 0.5})
        >>> metrics.write(1, {"loss": 0.25, "success": 1.0})
        >>> metrics.rows
        [{'step': '0', 'loss': '0.5'}, {'step': '1', 'loss': '0.25', 'success': '1.0'}]
        >>> print(metrics.path.read_text(encoding="utf-8"))
        step,loss,success,digest
        0,0.5,,row:638ea94724778a18
        1,0.25,1.0,row:25152383ec3b0852
        <BLANKLINE>
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.columns = [STEP]
        self.rows: list[dict[str, str]] = []
        self.ended = False
        self._last = ""
        self._resuming = self.path.exists()
        if self._resuming:
            self._read()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row, or add to the row of the same step.

        Args:
            step: the step; it never decreases, except at the first row after a resume.
            metrics: numbers by name.

        Raises:
            ValueError: where the step is before the last one, or a metric is called as a column of
                the table's own.
        """
        if own := sorted({STEP, DIGEST}.intersection(metrics)):
            raise ValueError(f"Metric '{own[0]}' has the name of a column that every table has.")
        new = [name for name in metrics if name not in self.columns]
        row = {STEP: str(step), **{name: repr(float(value)) for name, value in metrics.items()}}
        last = int(self.rows[-1][STEP]) if self.rows else -1
        if self._resuming:
            self._drop_from(step)
        elif step < last:
            raise ValueError(
                f"Step {step} comes after step {last} in {self.path}: steps must not decrease."
            )
        self.columns += new
        if not self._resuming and step == last:
            self.rows[-1].update(row)
            rewrite = True
        else:
            rewrite = bool(new) or self._resuming or self.ended or not self.rows
            self.rows.append(row)
        self._resuming = self.ended = False
        if rewrite:
            self._rewrite()
        else:
            append_text(self.path, self._lines([row]))

    def end(self) -> None:
        """Say in the file that the run ended with its last row."""
        if self.rows and not self.ended:
            self.ended = True
            self._rewrite()

    def go_on_from(self, step: int) -> None:
        """Drop rows from a step on, which is to come next.

        Raises:
            ValueError: where there are rows, but none of the step before.
        """
        if self.rows and int(self.rows[-1][STEP]) < step - 1:
            raise ValueError(
                f"{self.path} breaks off at step {self.rows[-1][STEP]}, expected rows up to step "
                f"{step - 1}: copy it again from where it is whole, or remove it to go on without "
                "it."
            )
        if self._drop_from(step):
            self.ended = False
            self._rewrite()

    def numbers(self) -> list[tuple[int, dict[str, float]]]:
        """Each row's step and its numbers."""
        return [
            (int(row[STEP]), {name: float(cell) for name, cell in row.items() if name != STEP})
            for row in self.rows
        ]

    def _drop_from(self, step: int) -> int:
        """Forget rows from a step on; returns how many."""
        kept = [row for row in self.rows if int(row[STEP]) < step]
        dropped = len(self.rows) - len(kept)
        if dropped:
            logger.info("%s: %d rows from step %d on are replaced", self.path, dropped, step)
        self.rows = kept
        return dropped

    def _rewrite(self) -> None:
        self._last = ""
        write_text(self.path, _text([[*self.columns, DIGEST]]) + self._lines(self.rows))

    def _lines(self, rows: list[dict[str, str]]) -> str:
        """The lines of rows that follow the last digest."""
        cells = []
        for row in rows:
            kind = END if self.ended and row is self.rows[-1] else ROW
            self._last = _digest(kind, self._last, row)
            cells.append([*(row.get(name, "") for name in self.columns), self._last])
        return _text(cells)

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]), strict=True)
        try:
            header = next(lines, [])
        except csv.Error:
            header = []
        signed = header[-1:] == [DIGEST]
        self.columns = header[:-1] if signed else header
        if self.columns[:1] != [STEP]:
            raise ValueError(
                f"{self.path} is not a table of metrics (first column '{STEP}'): move it away or "
                "choose another folder."
            )
        advice = f"remove the column '{DIGEST}'" if signed else "repair the line"
        try:
            for cells in lines:
                self._take(cells, signed)
        except (csv.Error, ValueError) as error:
            raise ValueError(
                f"{self.path}, line {lines.line_num}: {error}. Copy the file again from where it "
                f"is whole; where you changed it yourself, {advice}."
            ) from error

    def _take(self, cells: list[str], signed: bool) -> None:
        """Add a line that was read to the rows."""
        expected = len(self.columns) + signed
        if len(cells) != expected:
            raise ValueError(f"it has {len(cells)} cells, expected {expected}")
        found = cells.pop() if signed else ""
        row = {name: cell for name, cell in zip(self.columns, cells, strict=True) if cell}
        if signed:
            kind, before, self._last = found.partition(":")[0], self._last, found
            if found != _digest(kind, before, row):
                raise ValueError(
                    "the line, one before it, or a name in line 1 differs from the digest"
                )
            self.ended = kind == END
        else:
            int(row.get(STEP, ""))
            for cell in row.values():
                float(cell)
            self.ended = True
        self.rows.append(row)


def _digest(kind: str, before: str, row: Mapping[str, str]) -> str:
    """What stands in a row's last cell."""
    return f"{kind}:{canonical_digest([kind, before, row])[:DIGITS]}"


def _text(rows: Iterable[Iterable[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def read_metrics(path: str | Path, *, ended: bool = False) -> list[dict[str, float]]:
    """Read what a :class:`MetricsFile` wrote.

    Args:
        path: the file.
        ended: refuse what a run wrote that has not ended, as what was cut off at its end. A file
            without digests says nothing about it and is taken as it is.

    Returns:
        The numbers of each step by name, ``"step"`` among them, without those not logged then.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is not such a table, or a line is damaged or missing.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> MetricsFile(file).write(0, {"loss": 0.5})
        >>> read_metrics(file)
        [{'step': 0.0, 'loss': 0.5}]
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: no metrics were logged there.")
    metrics = MetricsFile(path)
    if ended and not metrics.ended:
        last = metrics.rows[-1][STEP] if metrics.rows else "none"
        raise ValueError(
            f"{path} breaks off, its last step is {last}: the run was stopped and can be resumed, "
            "or the file was cut and has to be copied again from where it is whole."
        )
    return [{name: float(value) for name, value in row.items()} for row in metrics.rows]
