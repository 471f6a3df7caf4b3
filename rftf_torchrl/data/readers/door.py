"""Find the reader of a source and go through its episodes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, get_type_hints

from rftf_torchrl.data.format import INDEX_FILE
from rftf_torchrl.data.readers.episode import BadEpisode, VideoEpisode
from rftf_torchrl.registry import Registry
from rftf_torchrl.settings import check_value

logger = logging.getLogger(__name__)

VIEW = ("size", "fps")
HDF5_SUFFIXES = (".hdf5", ".h5")
READERS = Registry(
    "reader",
    "rftf_torchrl.readers",
    {
        "videos": "rftf_torchrl.data.readers.videos:read_videos",
        "lerobot": "rftf_torchrl.data.readers.lerobot:read_lerobot",
        "hdf5": "rftf_torchrl.data.readers.hdf5:read_hdf5",
        "calvin": "rftf_torchrl.calvin.data.episodes:read_calvin",
        "demonstrations": "rftf_torchrl.data.readers.own:read_demonstrations",
    },
    ("__call__",),
)


class Reader(Protocol):
    """A function from a path to episodes, see :mod:`rftf_torchrl.data.readers`."""

    def __call__(
        self, path: str, *, size: int | None, fps: float | None, **options: Any
    ) -> Iterator[VideoEpisode | BadEpisode]:
        """Go through the episodes; frames are square with edge ``size``, ``fps`` a second."""


def video_episodes(
    path: str | Path,
    kind: str | None = None,
    *,
    size: int | None = None,
    fps: float | None = None,
    options: Mapping[str, Any] | None = None,
    episodes: Collection[int] | None = None,
    tasks: Collection[str] | None = None,
) -> Iterator[VideoEpisode | BadEpisode]:
    """Go through the episodes of a source of any kind.

    Args:
        path: a folder or a file; of ``"lerobot"`` also a data set's id on the hub.
        kind: the reader, see :mod:`rftf_torchrl.data.readers`; None guesses it from the files and
            logs the guess.
        size: edge of the square images in pixels; None for the source's own sizes.
        fps: frames per second to keep, and the last one; None for all.
        options: of the reader, by keyword.
        episodes: numbers of the episodes to keep, see ``VideoEpisode.index``; None for all.
        tasks: instructions or names of tasks to keep; None for all.

    Yields:
        The episodes, in the source's order, and what cannot be used.

    Raises:
        ValueError: where there is no such reader, it does not take an option, or the kind cannot
            be guessed; after the last episode, where one that was asked for is not there.
        FileNotFoundError: where there is nothing at the path.
        DemonstrationError: where the source as a whole cannot be read.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import write_synthetic_demonstrations
        >>> root = write_synthetic_demonstrations(tempfile.mkdtemp() + "/demos")
        >>> episode = next(video_episodes(root, size=4))
        >>> episode.instruction, episode.read().shape
        ('do task 0', torch.Size([6, 3, 4, 4]))
    """
    if kind is None:
        kind = guess_reader(path)
        logger.info("%s is read as %s", path, kind)
    reader = cast(Reader, READERS.find(kind))
    if problems := reader_problems(kind, options or {}):
        raise ValueError("; ".join(problems))
    found = reader(str(path), size=size, fps=fps, **(options or {}))
    numbers, names = set(episodes or ()), set(tasks or ())
    for place, episode in enumerate(found):
        number = place if episode.index is None else episode.index
        numbers.discard(number)
        if isinstance(episode, BadEpisode):
            names.clear()  # its task is not known
            if episode.index is None:
                numbers.clear()  # nor which numbers a whole file would have had
            if episodes is None or episode.index is None or number in episodes:
                yield episode
            continue
        names -= {episode.task, episode.instruction}
        if (episodes is None or number in episodes) and (
            tasks is None or {episode.task, episode.instruction} & set(tasks)
        ):
            yield replace(episode, index=number)
    if numbers or names:
        missing = [*map(str, sorted(numbers)), *map(repr, sorted(names))]
        raise ValueError(
            f"{path} has no such episode or task: {', '.join(missing)} (data.episodes, data.tasks)"
        )


def reader_problems(kind: str, options: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what is wrong with a reader and its options.

    Args:
        kind: see :func:`video_episodes`.
        options: by name.
        prefix: what stands before an option's name, as ``"data.options."``.

    Returns:
        One line for each problem.

    Example:
        >>> reader_problems("lerobot", {"camra": "top"})
        ["camra: the reader 'lerobot' has no such option, it has camera, success"]
    """
    try:
        reader = READERS.find(kind)
    except ValueError as error:
        return [str(error)]
    known = reader_options(reader)
    problems = []
    for name, value in options.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            problems.append(
                f"{prefix}{name}: the reader {kind!r} has no such option, it has {listed}"
            )
            continue
        try:
            check_value(f"{prefix}{name}", value, known[name])
        except ValueError as error:
            problems.append(str(error))
    return problems


def reader_options(reader: Callable[..., Any]) -> dict[str, Any]:
    """The options of a reader, and their types."""
    hints = get_type_hints(reader, include_extras=True)
    return {
        each.name: hints.get(each.name, Any)
        for each in inspect.signature(reader).parameters.values()
        if each.kind is each.KEYWORD_ONLY and each.name not in VIEW
    }


def guess_reader(path: str | Path) -> str:
    """Guess the kind of a source from its files.

    Args:
        path: a folder or a file.

    Returns:
        The name of a reader of the library's.

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: where more than one kind lies there.

    Example:
        >>> import tempfile
        >>> guess_reader(tempfile.mkdtemp())
        'videos'
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(
            f"there is nothing at {path}. For a LeRobot data set of the hub, give its id and the "
            "kind lerobot (data.kind=lerobot)"
        )
    kinds = [kind for kind, found in _marks(root).items() if found] or ["videos"]
    if len(kinds) > 1:
        raise ValueError(
            f"{path} may be {' or '.join(kinds)}: say which, by the kind (data.kind={kinds[0]})"
        )
    return kinds[0]


def _marks(root: Path) -> dict[str, bool]:
    splits = ("training", "validation")
    return {
        "lerobot": (root / "meta" / "info.json").is_file(),
        "demonstrations": (root / INDEX_FILE).is_file(),
        "calvin": any((root / split / "ep_start_end_ids.npy").is_file() for split in splits),
        "hdf5": root.suffix in HDF5_SUFFIXES
        or (root.is_dir() and any(file.suffix in HDF5_SUFFIXES for file in root.iterdir())),
    }
