"""The value of every frame of a data set, in the columns that LeRobot reads."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from tensordict.nn import TensorDictModuleBase

from rftf_torchrl.data.demonstrations import Demonstrations
from rftf_torchrl.files import whole_file
from rftf_torchrl.nets.evaluate_states import evaluate_states
from rftf_torchrl.optional import optional_module

COLUMNS = ("index", "episode_index", "frame_index", "progress_dense")


def write_progress_table(
    value_model: TensorDictModuleBase, demonstrations: Demonstrations, path: str | Path
) -> Path:
    """Write the value of every frame, as LeRobot's reward models write their progress.

    ``index`` is the frame's row in the data set, ``episode_index`` the episode's number,
    ``frame_index`` the time in the episode from 0, all int64; ``progress_dense`` is the value,
    float32, as the model gives it: a calibrated one is about 0 at the start and 1 at the end of a
    demonstration, and may leave [0, 1].

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
    suffix = Path(path).suffix
    if suffix not in (".parquet", ".csv"):
        raise ValueError(f"the path {str(path)!r} ends in neither '.parquet' nor '.csv'.")
    if suffix == ".parquet":
        optional_module("pyarrow", "parquet", "a .parquet file (a .csv needs nothing)")
    pieces: list[list[torch.Tensor]] = [[], [], [], []]
    for episode in demonstrations.episodes:
        frames = demonstrations.frames[episode.start : episode.stop].select(*value_model.in_keys)
        values = evaluate_states(value_model, frames, out_key=value_model.out_keys[0])
        row = torch.arange(episode.start, episode.stop)
        parts = (row, torch.full_like(row, episode.index), row - episode.start, values.flatten())
        for column, part in zip(pieces, parts, strict=True):
            column.append(part)
    table = {name: torch.cat(piece) for name, piece in zip(COLUMNS, pieces, strict=True)}
    with whole_file(path) as temporary:
        if suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(COLUMNS)
                rows.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
        else:
            pyarrow = optional_module("pyarrow", "parquet")
            parquet = optional_module("pyarrow.parquet", "parquet")
            columns = {name: column.numpy() for name, column in table.items()}
            parquet.write_table(pyarrow.table(columns), temporary)
    return Path(path)
