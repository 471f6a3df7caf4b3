"""The result of a reader: an episode whose frames are decoded when they are needed, or an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class BadEpisodeError(ValueError):
    """The frames of an episode cannot be used; the message says why, without the episode's name."""


@dataclass(frozen=True)
class BadEpisode:
    """An episode that cannot be used.

    Attributes:
        name: where it is in its source: file, episode, line.
        problem: what is wrong, what was expected and what to do.
        index: its number in the source; None for what belongs to no episode, such as a caption
            without a video.

    Example:
        >>> str(BadEpisode("a.mp4", "no row in captions.csv names it"))
        'a.mp4: no row in captions.csv names it'
    """

    name: str
    problem: str
    index: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


@dataclass(frozen=True, eq=False)
class VideoEpisode:
    """An episode of frames and an instruction, as a reader gives it.

    Attributes:
        name: where it is in its source, such as ``"kitchen/a.mp4"`` or ``"episode 12"``; unique.
        instruction: the task's text.
        frames: uint8 [T, 3, h, w] in time order, or a function that decodes them; it raises
            :class:`BadEpisodeError` (or another ``ValueError``, or an ``OSError``) where it can't.
        success: whether the episode reached its goal; None where the source does not say.
        task: what episodes are grouped by in reports; None for the instruction.
        split: ``"train"``, ``"test"``, or None where the source does not say.
        index: its number in the source, such as LeRobot's ``episode_index``; None for its place.
        fps: frames per second of the source; None where it has none or they vary.
        version: a text that changes when the frames may have changed, see :func:`file_version`.
        row: the number of its first frame among all frames of the source; None where those have no
            numbers.

    Raises:
        ValueError: where the instruction is empty.

    Example:
        >>> frames = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> VideoEpisode("a.mp4", "open the drawer", frames).read().shape
        torch.Size([4, 3, 8, 8])
    """

    name: str
    instruction: str
    frames: Tensor | Callable[[], Tensor]
    success: bool | None = None
    task: str | None = None
    split: str | None = None
    index: int | None = None
    fps: float | None = None
    version: str = ""
    row: int | None = None

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise ValueError(f"{self.name}: the instruction is empty")

    def read(self) -> Tensor:
        """Decode the frames.

        Returns:
            uint8 [T, 3, h, w], ``T >= 2``.

        Raises:
            BadEpisodeError: where they cannot be decoded or are fewer than two.
        """
        try:
            frames = self.frames if isinstance(self.frames, Tensor) else self.frames()
        except BadEpisodeError:
            raise
        except (ValueError, OSError) as error:
            raise BadEpisodeError(str(error)) from error
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
            raise BadEpisodeError(
                f"its frames are {frames.dtype} {list(frames.shape)}, expected uint8 [T, 3, h, w]"
            )
        if len(frames) < 2:
            raise BadEpisodeError(
                f"it has {len(frames)} frame{'s' * (len(frames) != 1)}, expected 2 or more: order "
                "needs two"
            )
        return frames
