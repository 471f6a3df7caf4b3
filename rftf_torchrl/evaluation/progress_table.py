"""The value of every frame of a data set, in the columns that LeRobot reads."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from rftf_torchrl.data.demonstrations import Demonstrations
from rftf_torchrl.files import whole_file
from rftf_torchrl.nets.evaluate_states import evaluate_states
from rftf_torchrl.optional import optional_module

logger = logging.getLogger(__name__)

COLUMNS = ("index", "episode_index", "frame_index", "progress_dense")


def write_progress_table(
    value_model: TensorDictModuleBase, demonstrations: Demonstrations, path: str | Path
) -> Path:
    """Write the value of every frame, as LeRobot's reward models write their progress.

    ``index`` is the frame's row in the data set, ``episode_index`` the episode's number, and
    ``frame_index`` the time in the episode from 0; all are int64. ``progress_dense`` is the value
    that the model gives, float32. From a calibrated model it is about 0 at the start and 1 at the
    end of a demonstration, and may leave [0, 1].

    Source: the columns of LeRobot's progress files, https://github.com/huggingface/lerobot.

    Args:
        value_model: writes the value of a state, float [*B, 1], to its first ``out_keys``.
        demonstrations: the episodes.
        path: the file, ``.parquet`` or ``.csv``; it is written whole or not at all.

    Returns:
        The path.

    Raises:
        ValueError: if the path ends in something else.
        ModuleNotFoundError: for ``.parquet`` without pyarrow.
    """
    values = (
        (
            episode.start,
            episode.index,
            evaluate_states(
                value_model,
                demonstrations.frames[episode.start : episode.stop].select(*value_model.in_keys),
                out_key=value_model.out_keys[0],
            ).flatten(),
        )
        for episode in demonstrations.episodes
    )
    return write_progress(values, path)


def progress_path(folder: Path) -> Path:
    """Where such a table goes: Parquet, or without pyarrow CSV, which the log says."""
    if find_spec("pyarrow"):
        return folder / "progress.parquet"
    logger.warning("pyarrow is not installed, so the values go to progress.csv instead of Parquet")
    return folder / "progress.csv"


def write_progress(episodes: Iterable[tuple[int, int, Tensor]], path: str | Path) -> Path:
    """Write values that were computed before, an episode at a time; see above.

    Args:
        episodes: of each, the row of its first frame, its number, and its values, float [T].
        path: see above.

    Returns:
        The path.
    """
    suffix = Path(path).suffix
    if suffix not in (".parquet", ".csv"):
        raise ValueError(f"the path {str(path)!r} ends in neither '.parquet' nor '.csv'.")
    if suffix == ".parquet":
        optional_module("pyarrow", "parquet", "a .parquet file (a .csv needs nothing)")
    pieces = (
        dict(
            zip(
                COLUMNS,
                (
                    torch.arange(first, first + len(values)),
                    torch.full([len(values)], number, dtype=torch.int64),
                    torch.arange(len(values)),
                    values,
                ),
                strict=True,
            )
        )
        for first, number, values in episodes
    )
    with whole_file(path) as temporary:
        if suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(COLUMNS)
                for piece in pieces:
                    rows.writerows(zip(*(part.tolist() for part in piece.values()), strict=True))
        else:
            pyarrow = optional_module("pyarrow", "parquet")
            parquet = optional_module("pyarrow.parquet", "parquet")
            types = [pyarrow.int64()] * 3 + [pyarrow.float32()]
            schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)))
            with parquet.ParquetWriter(temporary, schema) as file:
                for piece in pieces:
                    columns = {name: part.numpy() for name, part in piece.items()}
                    file.write_table(pyarrow.table(columns, schema=schema))
    return Path(path)
