"""The settings of data from outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from rftf_torchrl.settings import Count, Names, NotNegativeInt, Positive, Text


@dataclass
class DataConfig:
    """Videos, LeRobot's data sets and others, for the value model in place of a simulator's.

    Attributes:
        path: folder or file of the data; with ``kind=lerobot`` also the id of a data set on the
            hub. Null for the simulator's demonstrations. ``data=...`` is short for
            ``data.path=...``.
        kind: ``"videos"``, ``"lerobot"``, ``"hdf5"``, ``"calvin"``, ``"demonstrations"``, or a
            reader of your own as ``"module:function"``; null guesses it from the path.
        options: settings of this reader alone, such as ``camera``.
        image_size: frames are resized to squares of this width in pixels.
        fps: number of frames per second that are kept; the last frame of an episode is always kept.
            Null keeps all.
        episodes: numbers of the episodes to use; null for all.
        tasks: instructions or task names to use; null for all.
        held_out: share of the episodes of each task and outcome that no model is trained on, unless
            the source names its own test episodes; 0 for none.
        skip_bad: leave out episodes that cannot be used and count them, instead of stopping.
        max_words: largest number of words of an instruction.
        cache: folder of the decoded frames; null for ``data`` in the output folder.
    """

    path: Text | None = None
    kind: Text | None = None
    options: dict[str, Any] = field(default_factory=dict)
    image_size: Count = 64
    fps: Positive | None = 5.0
    episodes: list[NotNegativeInt] | None = None
    tasks: Names | None = None
    held_out: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.2
    skip_bad: bool = False
    max_words: Count = 16
    cache: str | None = None
