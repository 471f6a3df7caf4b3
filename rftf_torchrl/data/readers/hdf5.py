"""The reader of robomimic's and LIBERO's HDF5 files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.data.readers.captions import outcome
from rftf_torchrl.data.readers.door import HDF5_SUFFIXES
from rftf_torchrl.data.readers.episode import BadEpisode, BadEpisodeError, VideoEpisode
from rftf_torchrl.data.readers.pictures import at_rate, file_version, resized
from rftf_torchrl.optional import optional_module
from rftf_torchrl.settings import Positive, Text

PIECE = 64


def read_hdf5(
    path: str,
    *,
    size: int | None,
    fps: float | None,
    camera: Text | None = None,
    instruction: Text | None = None,
    picture_fps: Positive = 20.0,
    upside_down: bool | None = None,
) -> Iterator[VideoEpisode | BadEpisode]:
    """Read HDF5 files of robomimic or LIBERO: ``data/demo_i/obs/<camera>``, uint8 [T, h, w, 3].

    The instruction is ``language_instruction`` in the attribute ``problem_info`` of ``data``, as
    LIBERO has it, and the outcome the attribute ``success`` of an episode, where there is one.

    Source: https://robomimic.github.io/docs/datasets/overview.html and LIBERO's
    ``create_dataset.py``.

    Args:
        path: a file, or a folder of files.
        size: edge of the square images in pixels; None for their own sizes.
        fps: frames per second to keep; None for all.
        camera: name of the images, such as ``agentview_rgb``; needed where there are several.
        instruction: one instruction for all, where the files have none.
        picture_fps: frames per second of the files, which do not say it: the control rate.
        upside_down: turn the images over; None does what ``macros_image_convention`` says:
            ``"opengl"`` is upside down.

    Yields:
        The episodes.

    Raises:
        DemonstrationError: where there is no file.
    """
    root = Path(path)
    single = root.is_file()
    files = [root] if single else sorted(f for f in root.iterdir() if f.suffix in HDF5_SUFFIXES)
    if not files:
        raise DemonstrationError(f"HDF5 data in {root}", ["there is no .hdf5 or .h5 file"])
    h5py = optional_module("h5py", "video", "reading HDF5 files")
    index = 0
    for file in files:
        try:
            with h5py.File(file, "r") as opened:
                data = _inside(h5py, opened, "data")
                sentence = instruction or _sentence(data)
                turned = _upside_down(data) if upside_down is None else upside_down
                names = sorted(data, key=_number)
                found = [(name, *_episode(h5py, data, name, camera)) for name in names]
        except (BadEpisodeError, ValueError, OSError, KeyError) as error:
            yield BadEpisode(file.name, f"it cannot be read ({error})")
            continue
        for name, place, success in found:
            label = f"{file.name}: {name}"
            if isinstance(place, BadEpisodeError):
                yield BadEpisode(label, str(place), index)
            elif sentence is None:
                yield BadEpisode(
                    label,
                    "the file has no language_instruction: give an instruction "
                    "(data.options.instruction)",
                    index,
                )
            else:
                read = partial(_frames, h5py, file, place, size, fps, picture_fps, turned)
                yield VideoEpisode(
                    label,
                    sentence,
                    read,
                    success=success,
                    index=index,
                    fps=picture_fps,
                    version=file_version(file),
                )
            index += 1


def _inside(h5py: Any, group: Any, name: str) -> Any:
    """An entry that lies in the file itself, not behind a link to another file."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise BadEpisodeError(f"{name} is missing or a link, expected an entry of the file itself")
    return group[name]


def _sentence(data: Any) -> str | None:
    info = data.attrs.get("problem_info")
    if not isinstance(info, (str, bytes)):
        return None
    found = json.loads(info)
    sentence = found.get("language_instruction") if isinstance(found, dict) else None
    if isinstance(sentence, list):
        sentence = " ".join(map(str, sentence))
    return sentence.strip().strip('"') if isinstance(sentence, str) and sentence else None


def _upside_down(data: Any) -> bool:
    convention = data.attrs.get("macros_image_convention", "")
    return (convention.decode() if isinstance(convention, bytes) else convention) == "opengl"


def _camera(h5py: Any, data: Any, name: str, camera: str | None) -> str | BadEpisodeError:
    """The place of an episode's images, or what is wrong."""
    try:
        obs = _inside(h5py, _inside(h5py, data, name), "obs")
        entries = {each: _inside(h5py, obs, each) for each in obs}
    except BadEpisodeError as error:
        return error
    cameras = [
        each
        for each, entry in entries.items()
        if isinstance(entry, h5py.Dataset) and entry.ndim == 4 and entry.dtype == np.uint8
    ]
    chosen = cameras if camera is None else [each for each in cameras if each == camera]
    if len(chosen) != 1:
        return BadEpisodeError(
            f"{'no camera is ' + repr(camera) if camera else 'expected one camera'}: choose among "
            f"{', '.join(cameras) or 'none'} (data.options.camera)"
        )
    entry = entries[chosen[0]]
    if entry.is_virtual or entry.external:
        return BadEpisodeError(f"{chosen[0]} lies in another file, which is not read")
    if entry.shape[-1] != 3:
        return BadEpisodeError(f"{chosen[0]} is {list(entry.shape)}, expected [T, h, w, 3]")
    return str(entry.name)


def _episode(
    h5py: Any, data: Any, name: str, camera: str | None
) -> tuple[str | BadEpisodeError, bool | None]:
    """Where the images of an episode are, or what is wrong with it, and its outcome."""
    place = _camera(h5py, data, name, camera)
    if isinstance(place, BadEpisodeError):
        return place, None
    try:
        return place, outcome(data[name].attrs.get("success"))
    except ValueError as error:
        return BadEpisodeError(str(error)), None


def _frames(
    h5py: Any,
    file: Path,
    place: str,
    size: int | None,
    fps: float | None,
    picture_fps: float,
    upside_down: bool,
) -> Tensor:
    with h5py.File(file, "r") as opened:
        entry = opened[place]
        kept = list(at_rate(((i / picture_fps, i) for i in range(len(entry))), fps))
        pieces = []
        for begin in range(0, len(kept), PIECE):
            pixels = entry[kept[begin : begin + PIECE]]
            pixels = pixels[:, ::-1] if upside_down else pixels
            frames = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
            pieces.append(resized(frames, size))
    return torch.cat(pieces) if pieces else torch.zeros(0, 3, 1, 1, dtype=torch.uint8)


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("_")[2]
    return (int(digits) if digits.isdecimal() else -1, name)
