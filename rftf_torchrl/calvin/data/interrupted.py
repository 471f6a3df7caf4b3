"""A recording that stopped early: how far it came, and what is needed to continue."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rftf_torchrl.calvin.data.checks import CAMERAS
from rftf_torchrl.calvin.data.format import INTERRUPTED_FILE, frame_name, scene_name
from rftf_torchrl.calvin.data.frames import read_frame
from rftf_torchrl.calvin.data.layout import read_episodes, read_scenes
from rftf_torchrl.calvin.data.spans import CalvinSpan, read_spans
from rftf_torchrl.calvin.data.statistics import RunningStatistics
from rftf_torchrl.data.format import DemonstrationError
from rftf_torchrl.digests import digest_problems
from rftf_torchrl.files import write_text

ADVICE = (
    "# The recording of this split stopped early. Remove this file to use what there is as if it "
    "were whole.\n"
)


@dataclass(frozen=True)
class Mark:
    """A point of a recording up to which all of it belongs together.

    Args:
        frame: the number of the frame that comes next.
        spans: the number of annotations.
        progress: what the recorder needs to know to go on; plain values, lists and dictionaries.
    """

    frame: int
    spans: int = 0
    progress: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``interrupted.txt``.

        Args:
            folder: the folder of the split.

        Example:
            >>> import tempfile
            >>> folder = Path(tempfile.mkdtemp())
            >>> Mark(70, 2, {"chains": 1}).write(folder)
            >>> read_mark(folder)
            Mark(frame=70, spans=2, progress={'chains': 1})
        """
        content = yaml.safe_dump(asdict(self), sort_keys=False)
        write_text(folder / INTERRUPTED_FILE, ADVICE + content)


@dataclass(frozen=True)
class Recorded:
    """What a split has up to its mark.

    Attributes:
        mark: the mark.
        episodes: first and last frame of each episode.
        scenes: first and last frame of each scene, by CALVIN's name.
        spans: the annotations.
        statistics: of the frames.
        cameras: shapes of the images by key; ``None`` where there is no frame.
    """

    mark: Mark
    episodes: list[tuple[int, int]]
    scenes: dict[str, list[int]]
    spans: list[CalvinSpan]
    statistics: RunningStatistics
    cameras: dict[str, tuple[int, ...]] | None


def read_mark(folder: Path) -> Mark:
    """Read ``interrupted.txt``.

    Args:
        folder: the folder of the split.

    Returns:
        The recording's last mark.

    Raises:
        FileNotFoundError: where there is none: the split is whole.
        DemonstrationError: where the file names no mark.
    """
    file = folder / INTERRUPTED_FILE
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: the split is whole, and there is nothing to go on with. Choose "
            "another folder, or move or remove this one to record again."
        )
    if damaged := digest_problems(folder, [INTERRUPTED_FILE], all_named=False):
        raise DemonstrationError(f"CALVIN data in {folder}", damaged)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        mark = Mark(**content)
        if not all(type(number) is int and number >= 0 for number in (mark.frame, mark.spans)):
            raise ValueError(f"frame {mark.frame!r}, spans {mark.spans!r}")
        if not isinstance(mark.progress, dict):
            raise ValueError(f"progress {mark.progress!r}")
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise _error(folder, f"names no place to go on from ({error})") from error
    return mark


def resume_recording(folder: Path) -> Recorded:
    """Read a split up to its mark, and remove the frames behind it.

    Args:
        folder: the folder of the split.

    Returns:
        What it has.

    Raises:
        FileNotFoundError: where the split was not interrupted.
        DemonstrationError: where the mark or the files before it can't be used; nothing is removed.
    """
    mark = read_mark(folder)
    found = read_episodes(folder)
    letters = read_scenes(folder, found, None)
    spans = list(read_spans(folder, found)[: mark.spans])
    episodes: list[tuple[int, int]] = []
    scenes: dict[str, list[int]] = {}
    for (first, last), letter in zip(found.tolist(), letters, strict=True):
        if first < mark.frame:
            episodes.append((first, last))
            scenes.setdefault(scene_name(letter), [first, last])[1] = last
    if (episodes and episodes[-1][1] != mark.frame - 1) or len(spans) != mark.spans:
        raise _error(
            folder,
            f"names frame {mark.frame} and {mark.spans} annotations, which do not end an episode "
            "of this split",
        )
    statistics = RunningStatistics()
    for first, last in episodes:
        for number in range(first, last + 1):
            statistics.add(read_frame(folder / frame_name(number)))
    cameras = None
    if episodes:
        with np.load(folder / frame_name(episodes[0][0]), allow_pickle=False) as frame:
            cameras = {key: frame[key].shape for key in CAMERAS if key in frame}
    for file in folder.glob("episode_*.npz"):
        if int(file.stem.removeprefix("episode_")) >= mark.frame:
            file.unlink()
    return Recorded(mark, episodes, scenes, spans, statistics, cameras)


def _error(folder: Path, problem: str) -> DemonstrationError:
    advice = "move or remove the folder to record again, or this file to use what there is"
    return DemonstrationError(
        f"CALVIN data in {folder}", [f"{INTERRUPTED_FILE} {problem}; {advice}"]
    )
