"""One logger for a run: TorchRL's loggers by name, and a plain table of all metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torchrl.record.loggers import get_logger
from torchrl.record.loggers.common import Logger

from rftf_torchrl.optional import optional_module
from rftf_torchrl.training.metrics_file import MetricsFile

KINDS = ("csv", "tensorboard", "wandb")
PROJECT = "rftf-torchrl"


class RunLogger:
    """Send every row of metrics to TorchRL loggers and to ``metrics.csv``.

    As a context manager, it marks the table as ended where its block ends without an error.

    Args:
        metrics: the table that each row is written to.
        make_loggers: make TorchRL loggers, at the first row. Where the table has rows before it, of
            a run that is resumed, they are logged first, so that no logger has a step twice.

    Example:
        >>> import tempfile
        >>> with RunLogger(MetricsFile(tempfile.mkdtemp() + "/metrics.csv")) as logger:
        ...     logger.log({"loss": 0.5}, step=0)
        >>> logger.metrics.rows
        [{'step': '0', 'loss': '0.5'}]
    """

    def __init__(
        self, metrics: MetricsFile, make_loggers: Sequence[Callable[[], Logger]] = ()
    ) -> None:
        self.metrics = metrics
        self._make_loggers = tuple(make_loggers)
        self.loggers: tuple[Logger, ...] = ()

    def log(self, metrics: Mapping[str, float | Tensor], step: int) -> None:
        """Write one row.

        Args:
            metrics: numbers, or tensors with one element, by name.
            step: the iteration.

        Raises:
            ValueError: where a value is not one number, or the step is before the last one.
        """
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        self.metrics.write(step, numbers)
        rows = [(step, numbers)]
        if self._make_loggers:
            self.loggers = tuple(make() for make in self._make_loggers)
            self._make_loggers = ()
            rows = self.metrics.numbers()
        for logger in self.loggers:
            for at, row in rows:
                logger.log_metrics(row, step=at)
            logger.flush()

    def close(self) -> None:
        """Flush and close every logger."""
        for logger in self.loggers:
            logger.close()

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, error: type[BaseException] | None, *details: object) -> None:
        self.close()
        if error is None:
            self.metrics.end()


def make_logger(kind: str, folder: str | Path, config: Mapping[str, Any]) -> RunLogger:
    """Make the logger of a run.

    =================== ===========================================================================
    word                what is written below ``folder``
    =================== ===========================================================================
    always              ``metrics.csv``: one row per step, see :class:`MetricsFile`
    ``"csv"``           ``csv/scalars/<name>.csv`` by :class:`torchrl.record.CSVLogger`
    ``"tensorboard"``   ``tensorboard/``: event files
    ``"wandb"``         ``wandb/``, and the run at W&B, in project ``rftf-torchrl``
    ``"none"``          nothing more
    =================== ===========================================================================

    Args:
        kind: one of these words, or several joined by ``+``, such as ``"csv+tensorboard"``.
        folder: an existing folder.
        config: the run's configuration, written to each logger as text.

    Returns:
        The logger; use it as a context manager or close it.

    Raises:
        ValueError: at a word that is not in the table.
        ImportError: where the logger's package is missing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with make_logger("csv", folder, {"seed": 0}) as logger:
        ...     logger.log({"train/loss": 0.5}, step=0)
        >>> (folder / "csv/scalars/train/loss.csv").read_text(encoding="utf-8")
        '0,0.5\\n'
    """
    words = logger_words(kind)
    metrics = MetricsFile(Path(folder) / "metrics.csv")
    return RunLogger(metrics, [partial(_make, word, Path(folder), config) for word in words])


def logger_words(kind: str) -> list[str]:
    """Split a kind of logger into its words.

    Raises:
        ValueError: at a word that is not in the table of :func:`make_logger`, or one given twice.
        ImportError: where the logger's package is missing.
    """
    words = [] if kind == "none" else kind.split("+")
    unknown = [word for word in words if word not in KINDS]
    if unknown:
        raise ValueError(
            f"Logger {kind!r} has unknown parts {unknown}: use 'none', or some of {list(KINDS)} "
            "joined by '+'."
        )
    if len(set(words)) != len(words):
        raise ValueError(f"Logger {kind!r} names a part twice: name each once.")
    if "wandb" in words:
        optional_module("wandb", "wandb", f"logger={kind}")
    return words


def _make(word: str, folder: Path, config: Mapping[str, Any]) -> Logger:
    if word == "wandb":
        logger = get_logger(
            "wandb", str(folder), folder.resolve().name, wandb_kwargs={"project": PROJECT}
        )
        logger.log_hparams(dict(config))
        return logger
    shutil.rmtree(folder / word, ignore_errors=True)
    logger = get_logger(word, str(folder), word)
    logger.experiment.add_text("config", json.dumps(config, indent=2, default=str), 0)
    return logger


def _number(name: str, value: float | Tensor) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"Metric '{name}' has shape {tuple(value.shape)}, expected one number.")
    return float(value)
