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
        path: a folder or a file; of ``kind=lerobot`` also a data set's id on the hub. null for the
            simulator's demonstrations. ``data=...`` is short for ``data.path=...``.
        kind: ``"videos"``, ``"lerobot"``, ``"hdf5"``, ``"calvin"``, ``"demonstrations"``, or a
            reader of your own as ``"module:function"``; null guesses it from the path.
        options: of the reader, such as ``camera``.
        image_size: edge of the square images that frames are resized to, in pixels.
        fps: frames per second that are kept, and an episode's last one; null for all.
        episodes: numbers of the episodes to use; null for all.
        tasks: instructions, or names of tasks, to use; null for all.
        held_out: share of the episodes of each task and outcome that no model is trained on, where
            the source does not say; 0 for none.
        skip_bad: leave out episodes that cannot be used and count them, instead of stopping.
        max_words: longest instruction.
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
