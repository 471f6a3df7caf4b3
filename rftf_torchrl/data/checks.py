"""Checks of frames against the format; each lists all violations at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.data.format import ACTION, ACTION_IS_PAD, EPISODE, Entry, Episode
from rftf_torchrl.data.images import images_of

MAX_LISTED = 5
ROUNDING = 1e-6


def entry_problems(
    frames: TensorDictBase, entries: Sequence[Entry], sizes: Mapping[str, int] | None = None
) -> list[str]:
    """List the entries that are missing, of another dtype or of another shape.

    Args:
        frames: tensordict [T].
        entries: key, dtype and trailing shape of each entry; a letter in a shape stands for one
            size, the same wherever it appears.
        sizes: the sizes that the letters must have, where they are known.

    Returns:
        One sentence per violation, none if the frames are sound.

    Example:
        >>> from tensordict import TensorDict
        >>> frames = TensorDict({"action": torch.zeros(4, 2, dtype=torch.float64)}, [4])
        >>> entries = [("action", torch.float32, ("A",)), ("task_id", torch.int64, (1,))]
        >>> entry_problems(frames, entries)
        ["key 'action': dtype torch.float64, expected torch.float32", "key 'task_id': missing"]
    """
    bound = dict(sizes or {})
    problems = []
    for key, dtype, trailing in entries:
        value = frames.get(key, None)
        if not isinstance(value, Tensor):
            problems.append(f"key {key!r}: missing")
            continue
        if value.dtype != dtype:
            problems.append(f"key {key!r}: dtype {value.dtype}, expected {dtype}")
        shape = tuple(value.shape[frames.batch_dims :])
        expected = tuple(
            size if isinstance(size, int) else bound.get(size, size) for size in trailing
        )
        if len(shape) != len(expected) or any(
            isinstance(want, int) and got != want for got, want in zip(shape, expected, strict=True)
        ):
            problems.append(
                f"key {key!r}: shape {shape} per frame, expected ({', '.join(map(str, expected))})"
            )
            continue
        for size, got in zip(trailing, shape, strict=True):
            if isinstance(size, str):
                bound.setdefault(size, got)
    return problems


def content_problems(frames: TensorDictBase) -> list[str]:
    """List the frames of one episode whose numbers cannot be used.

    Args:
        frames: tensordict [T], whose entries passed :func:`entry_problems`.

    Returns:
        One sentence per violation, none if the frames are sound.

    Example:
        >>> from tensordict import TensorDict
        >>> frames = TensorDict({"action": torch.tensor([[0.5], [float("nan")], [0.0]])}, [3])
        >>> content_problems(frames)
        ["key 'action': not finite at frame 1"]
    """
    problems = []
    for key in (keys.STATE, ACTION):
        value = frames.get(key, None)
        if value is not None:
            finite = torch.isfinite(value).flatten(1).all(1)
            if not finite.all():
                problems.append(f"key {key!r}: not finite at {_frames(~finite)}")
    mask = frames.get(keys.TOKEN_MASK, None)
    if mask is not None and not (some := mask.any(1)).all():
        problems.append(f"key {keys.TOKEN_MASK!r}: the instruction is empty at {_frames(~some)}")
    action = frames.get(ACTION, None)
    if action is not None:
        size = action.abs().nan_to_num(0.0, 0.0)
        if (beyond := (size > 1 + ROUNDING).any(1)).any():
            problems.append(
                f"key {ACTION!r}: beyond -1 to 1 at {_frames(beyond)}, up to "
                f"{float(size.max()):g}; every simulator takes actions in -1 to 1, so record them "
                "in these units"
            )
    if action is not None and len(action) and (action[-1] != 0).any():
        problems.append(
            f"key {ACTION!r}: the last frame's action is not zero; an episode ends with the "
            "observation after its last action, so record that frame with a zero action"
        )
    return problems


def picture_problems(frames: TensorDictBase) -> list[str]:
    """List the images of one episode whose numbers are 0 and 1 only.

    Args:
        frames: tensordict [T], whose entries passed :func:`entry_problems`.

    Returns:
        One sentence per image, none if they are sound.

    Example:
        >>> from tensordict import TensorDict
        >>> image = torch.rand(2, 3, 8, 8).round().byte()
        >>> len(picture_problems(TensorDict({"observation": {"image": image}}, [2])))
        1
    """
    return [
        f"key {key!r}: the largest number is 1, as of images in 0..1 that were cut to whole "
        "numbers; scale them to 0..255 before"
        for key in images_of(frames)
        if frames[key].numel() and int(frames[key].max()) == 1
    ]


def label_problems(frames: TensorDictBase, episode: Episode) -> list[str]:
    """List where the labels of one episode's frames differ from the index.

    Args:
        frames: tensordict [T], the episode's frames with ``"task_id"``, ``"episode"`` and
            ``"action_is_pad"``.
        episode: the episode's record.

    Returns:
        One sentence per violation, none if the labels agree.

    Example:
        >>> from tensordict import TensorDict
        >>> frames = TensorDict({"task_id": torch.tensor([[0], [4]])}, [2])
        >>> label_problems(frames, Episode(index=0, task_id=0, start=0, stop=2, success=True))
        ["key 'task_id': is not 0 at frame 1"]
    """
    problems = []
    for key, expected in ((keys.TASK_ID, episode.task_id), (EPISODE, episode.index)):
        value = frames.get(key, None)
        if value is not None and (differs := value.flatten() != expected).any():
            problems.append(f"key {key!r}: is not {expected} at {_frames(differs)}")
    pad = frames.get(ACTION_IS_PAD, None)
    if pad is not None:
        expected_pad = torch.zeros(len(pad), dtype=torch.bool)
        expected_pad[-1:] = True
        if (differs := pad.flatten() != expected_pad).any():
            problems.append(
                f"key {ACTION_IS_PAD!r}: must be True at the last frame only, differs at "
                f"{_frames(differs)}"
            )
    return problems


def _frames(where: Tensor) -> str:
    """Name the frames at which a bool [T] is True, the first few of them."""
    found = where.nonzero().flatten().tolist()
    listed = ", ".join(map(str, found[:MAX_LISTED]))
    more = f" and {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else ""
    return f"frame{'s' * (len(found) != 1)} {listed}{more}"
