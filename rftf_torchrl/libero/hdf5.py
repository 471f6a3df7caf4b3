"""LIBERO's own demonstrations, HDF5 files, turned into this library's."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from rftf_torchrl import keys
from rftf_torchrl.data.format import ACTION, DemonstrationError
from rftf_torchrl.data.readers.pictures import resized
from rftf_torchrl.data.writer import DemonstrationWriter
from rftf_torchrl.libero.env import LIBERO_TOKENIZER
from rftf_torchrl.libero.suites import HELD_OUT, get_task
from rftf_torchrl.optional import optional_module
from rftf_torchrl.training.progress import progress_bar

logger = logging.getLogger(__name__)

_SUFFIX = "_demo.hdf5"
_DEMO = "demo_"
_CAMERAS = {keys.IMAGE: "agentview_rgb", keys.WRIST_IMAGE: "eye_in_hand_rgb"}
_STATES = ("ee_states", "gripper_states")


def libero_demonstrations(
    source: str | Path,
    folder: str | Path,
    *,
    suite: str,
    image_size: int,
    wrist: bool = True,
    held_out: int = 5,
    limit: int | None = None,
) -> int:
    """Turn LIBERO's demonstrations of a suite into a folder that the recipes read.

    In these files an observation is stored with the action that led to it; here it is stored with
    the action that follows. Images are rotated by 180 degrees and resized. The state has eight
    numbers. The official initial states are not in the files: they begin five steps after a start.

    Source: LIBERO's ``scripts/create_dataset.py``.

    Args:
        source: a folder of files ``<task>_demo.hdf5``.
        folder: where the demonstrations go; give it to the recipes as ``demos.path``.
        suite: the suite.
        image_size: edge of the images in pixels.
        wrist: whether to keep the images of the camera at the gripper.
        held_out: last demonstrations of each task that are marked ``"test"``.
        limit: at most this many demonstrations of each task, the first ones.

    Returns:
        How many were written.

    Raises:
        DemonstrationError: where there is no file, or for one that cannot be used.
        FileExistsError: where ``folder`` exists.
        ValueError: for an unknown or perturbed suite, a file of a task that the suite has not, or a
            limit below 1.
    """
    if suite in HELD_OUT:
        raise ValueError(f"{suite} is a held-out test, and LIBERO has no demonstrations of it")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected 1 or more, or None")
    files = sorted(Path(source).glob(f"*{_SUFFIX}"))
    if not files:
        raise DemonstrationError(f"LIBERO's data in {source}", [f"there is no *{_SUFFIX}"])
    tasks = {file: get_task(suite, file.name.removesuffix(_SUFFIX)) for file in files}
    h5py = optional_module("h5py", "video", "reading HDF5 files")
    cameras = {key: name for key, name in _CAMERAS.items() if wrist or key == keys.IMAGE}
    written = 0
    with (
        DemonstrationWriter(folder, tasks=list(tasks.values()), simulator="libero") as writer,
        progress_bar(len(files), "LIBERO's demonstrations", unit="files") as bar,
    ):
        for file, task in tasks.items():
            tokens, mask = LIBERO_TOKENIZER(task.instruction)
            try:
                opened = h5py.File(file, "r")
            except OSError as error:
                raise DemonstrationError(str(file), [f"it cannot be read ({error})"]) from error
            with opened:
                names = sorted(_demos(opened, str(file)), key=_number)[:limit]
                if not 0 <= held_out < len(names):
                    wrong = f"held_out={held_out} of {len(names)} demonstrations leaves none"
                    raise DemonstrationError(str(file), [wrong])
                for number, name in enumerate(names):
                    demo, place = opened["data"][name], f"{file}: {name}"
                    frames = _frames(demo, place, cameras, image_size)
                    length = [len(frames), -1]
                    frames[keys.TOKENS] = tokens.expand(length)
                    frames[keys.TOKEN_MASK] = mask.expand(length)
                    split = "test" if number >= len(names) - held_out else "train"
                    writer.add_episode(frames, task_id=task.id, success=True, split=split)
                    written += 1
            bar.update()
    return written


def _number(name: str) -> int:
    return int(name.removeprefix(_DEMO))


def _demos(opened: Any, place: str) -> list[str]:
    """The names of a file's demonstrations."""
    found = list(opened.get("data", ()))
    other = [name for name in found if not re.fullmatch(rf"{_DEMO}[0-9]+", name)]
    if other or not found:
        problems = [f"data/{name}: expected {_DEMO}<number>" for name in other]
        raise DemonstrationError(place, problems or [f"there is no data/{_DEMO}0"])
    return found


def _frames(demo: Any, place: str, cameras: dict[Any, str], size: int) -> TensorDict:
    entries = ["actions", *(f"obs/{name}" for name in (*_STATES, *cameras.values()))]
    missing = [name for name in entries if name not in demo]
    if missing:
        raise DemonstrationError(place, [f"{name} is missing" for name in missing])
    lengths = {name: len(demo[name]) for name in entries}
    if len(set(lengths.values())) > 1:
        raise DemonstrationError(
            place, [f"{name} has {length} rows" for name, length in lengths.items()]
        )
    actions = np.asarray(demo["actions"], dtype=np.float32)
    following = np.concatenate([actions[1:], np.zeros_like(actions[:1])])
    state = np.concatenate([demo["obs"][name] for name in _STATES], -1).astype(np.float32)
    frames = TensorDict(
        {keys.STATE: torch.from_numpy(state), ACTION: torch.from_numpy(following)}, [len(state)]
    )
    for key, name in cameras.items():
        turned = np.asarray(demo["obs"][name])[:, ::-1, ::-1].transpose(0, 3, 1, 2)
        frames[key] = resized(torch.from_numpy(np.ascontiguousarray(turned)), size)
    return frames
