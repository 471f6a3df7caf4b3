"""Decode a source once, into a folder of demonstrations without actions."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tensordict import TensorDict
from tqdm import tqdm

from rftf_torchrl import keys
from rftf_torchrl.data.demonstrations import (
    Demonstrations,
    held_out_places,
    load_demonstrations,
)
from rftf_torchrl.data.format import EPISODE, DemonstrationError, Episode, Task, frames_folder
from rftf_torchrl.data.index import Index, write_index
from rftf_torchrl.data.readers.door import guess_reader, video_episodes
from rftf_torchrl.data.readers.episode import BadEpisode, BadEpisodeError, VideoEpisode
from rftf_torchrl.data.readers.pictures import resized
from rftf_torchrl.data.readers.settings import DataConfig
from rftf_torchrl.files import give_blocks, name_in_errors, prepare_output, write_json
from rftf_torchrl.new_folder import NewFolder
from rftf_torchrl.rows_file import RowsFile
from rftf_torchrl.transforms.instruction_tokens import HashTokenizer

logger = logging.getLogger(__name__)

SOURCE_FILE = "source.json"
SIMULATOR = "none"
_DECIDE_NOTHING = ("cache", "skip_bad")
_HELD_OUT = "where a source names no test episode, among those that it does not call train"
"""The rule of the split: what was imported under another one is imported again."""
Record = dict[str, Any]


def import_videos(data: DataConfig, root: str | Path) -> Demonstrations:
    """Decode a source into a folder of demonstrations without state and action, and open it.

    Frames are added to one memory-mapped file, an episode at a time. An import that was killed
    continues where it stopped. A folder that was made from the same source with the same settings
    is used as it is. For another source or other settings it is made again.

    The split is by episode. Where the source names test episodes, these are the split ``"test"``.
    Else ``data.held_out`` of the episodes of each task and outcome are, always the same ones for
    the same data; those that the source calls ``"train"`` are left out.

    Args:
        data: the source and how to decode it.
        root: the folder to make.

    Returns:
        The episodes, in the source's order.

    Raises:
        DemonstrationError: with every episode that cannot be used, unless ``data.skip_bad``; what
            was decoded is kept for the next attempt.
        FileExistsError: where ``root`` holds something else.
        ValueError: where no episode is left, and as :func:`~rftf_torchrl.video_episodes` raises.

    Example:
        >>> import tempfile
        >>> from rftf_torchrl import write_synthetic_demonstrations
        >>> folder = Path(tempfile.mkdtemp())
        >>> source = write_synthetic_demonstrations(folder / "demos")
        >>> data = DataConfig(path=str(source), image_size=4)
        >>> found = import_videos(data, folder / "data")
        >>> found.frames["observation", "image"].shape
        torch.Size([26, 3, 4, 4])
    """
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    if data.kind is None:
        data = replace(data, kind=guess_reader(data.path or ""))
        logger.info("%s is read as %s (data.kind)", data.path, data.kind)
    settings = {name: value for name, value in asdict(data).items() if name not in _DECIDE_NOTHING}
    settings["held out"] = _HELD_OUT
    with FileLock(root.parent / f".{root.name}.lock"):
        records = _finished(data, settings, root) or _decode(data, settings, root)
    skipped = [record for record in records if "problem" in record]
    if skipped:
        logger.warning(
            "%d of %d episodes of %s are left out: %s lists them",
            len(skipped),
            len(records),
            data.path,
            root / SOURCE_FILE,
        )
    return load_demonstrations(root)


def _finished(data: DataConfig, settings: Record, root: Path) -> list[Record] | None:
    """What lies in the folder, where it is of this source and these settings."""
    if not root.exists():
        return None
    file = root / SOURCE_FILE
    if not file.is_file():
        raise FileExistsError(
            f"{root} exists and was not imported from a source: give another folder (data.cache)"
        )
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
        records, made_by = list[Record](earlier["episodes"]), earlier["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error!r}): remove the folder {root}, and it is imported again"
        ) from error
    if made_by == settings and _unchanged(data, records):
        _refuse_bad(data, records)
        return records
    logger.info("%s is made again: the source or the settings have changed", root)
    return None


def _unchanged(data: DataConfig, records: list[Record]) -> bool:
    """Whether the source has the same episodes, and none can be read that could not before."""
    place = -1
    for place, episode in enumerate(listed_episodes(data)):
        if place == len(records) or not _same(records[place], _said(episode)):
            return False
        if records[place].get("try_again") and isinstance(episode, VideoEpisode):
            with suppress(BadEpisodeError):
                episode.read()
                return False
    return place + 1 == len(records)


def _decode(data: DataConfig, settings: Record, root: Path) -> list[Record]:
    """Decode what an earlier attempt has not, and publish the folder in place of an older one."""
    hidden = root.with_name(f".{root.name}.importing")
    made_by = hidden / SOURCE_FILE
    if not made_by.is_file() or json.loads(made_by.read_text(encoding="utf-8")) != settings:
        shutil.rmtree(hidden, ignore_errors=True)
        prepare_output(hidden)
        write_json(made_by, settings)
    rows = RowsFile(hidden / "image")
    tokenizer = HashTokenizer(max_length=data.max_words)

    def decoded(episode: VideoEpisode) -> tuple[memoryview, Record]:
        _check_words(tokenizer, episode.instruction)
        frames = resized(episode.read(), data.image_size).contiguous()
        return frames.numpy().data.cast("B"), {"frames": len(frames)}

    keep_episodes(data, rows, decoded)
    shutil.rmtree(root, ignore_errors=True)
    _publish(data, settings, root, rows)
    shutil.rmtree(hidden, ignore_errors=True)
    return rows.records


def keep_episodes(
    data: DataConfig, rows: RowsFile, make: Callable[[VideoEpisode], tuple[memoryview, Record]]
) -> None:
    """Append what is made of each episode of a source, where an earlier attempt has not.

    Args:
        data: the source.
        rows: gets a piece and a record for each episode, the record alone for one that cannot be
            used.
        make: the bytes of an episode and what is said of it, or raises :class:`BadEpisodeError`.

    Raises:
        DemonstrationError: with every episode that cannot be used, unless ``data.skip_bad``.
    """
    place = -1
    for place, episode in enumerate(tqdm(listed_episodes(data), "episodes", disable=None)):
        said = _said(episode)
        known = rows.records[place] if place < len(rows.records) else None
        if known is not None and _same(known, said) and not known.get("try_again"):
            continue
        rows.cut(place)
        try:
            if isinstance(episode, BadEpisode):
                raise BadEpisodeError(episode.problem)
            content, more = make(episode)
        except BadEpisodeError as error:
            system = isinstance(error.__cause__, OSError) and error.__cause__.errno is not None
            again = {"try_again": True} if system else {}
            rows.append(b"", said | {"problem": str(error)} | again)
        else:
            rows.append(content, said | more)
    rows.cut(place + 1)
    _refuse_bad(data, rows.records)


def listed_episodes(data: DataConfig) -> Iterator[VideoEpisode | BadEpisode]:
    """The episodes that the settings choose."""
    return video_episodes(
        data.path or "",
        data.kind,
        size=data.image_size,
        fps=data.fps,
        options=data.options,
        episodes=data.episodes,
        tasks=data.tasks,
    )


def _said(episode: VideoEpisode | BadEpisode) -> Record:
    """What is known of an episode before it is decoded."""
    if isinstance(episode, BadEpisode):
        return {"name": episode.name, "index": episode.index, "problem": episode.problem}
    names = ("name", "index", "instruction", "success", "task", "split", "version")
    return {name: getattr(episode, name) for name in names}


def _same(record: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """Whether a record is of an episode as it is now; None stands for what is not there."""
    return all(record.get(name) == value for name, value in said.items()) and (
        "instruction" in record
    ) == ("instruction" in said)


def _check_words(tokenizer: HashTokenizer, sentence: str) -> None:
    """Raises :class:`BadEpisodeError` where an instruction is too long."""
    try:
        tokenizer(sentence)
    except ValueError as error:
        raise BadEpisodeError(f"{error} (data.max_words)") from error


def _refuse_bad(data: DataConfig, records: list[Record]) -> None:
    problems = [f"{each['name']}: {each['problem']}" for each in records if "problem" in each]
    if len(problems) == len(records):
        problems = problems or ["there is no episode, or data.episodes and data.tasks leave none"]
    elif data.skip_bad:
        return
    if problems:
        raise DemonstrationError(f"Data in {data.path}", problems)


def _publish(data: DataConfig, settings: Record, root: Path, rows: RowsFile) -> None:
    folder = NewFolder(root, "frames")
    try:
        with name_in_errors(f"Cannot write {root}"):
            _fill(data, folder.hidden, rows)
        made_by = {"settings": settings, "episodes": rows.records}
        write_json(folder.hidden / SOURCE_FILE, made_by)
        image = frames_folder(folder.hidden) / "observation" / "image.memmap"
        image.unlink()
        try:
            image.hardlink_to(rows.file)
        except OSError:  # a file system without links: a kill from here on decodes again
            rows.file.rename(image)
        folder.publish()
    finally:
        folder.discard()


def _fill(data: DataConfig, whole: Path, rows: RowsFile) -> None:
    """Write the index, and the frames with all but their images, which lie in ``rows``."""
    kept = [record for record in rows.records if "frames" in record]
    tasks = _tasks(kept)
    episodes = _episodes(data, kept, {task.name: task.id for task in tasks})
    size, total = data.image_size, episodes[-1].stop
    one = TensorDict(
        {
            keys.IMAGE: torch.zeros(1, 3, size, size, dtype=torch.uint8),
            keys.TOKENS: torch.zeros(1, data.max_words, dtype=torch.int64),
            keys.TOKEN_MASK: torch.zeros(1, data.max_words, dtype=torch.bool),
            keys.TASK_ID: torch.zeros(1, 1, dtype=torch.int64),
            EPISODE: torch.zeros(1, 1, dtype=torch.int64),
        },
        batch_size=[1],
    )
    frames = one.expand(total).memmap_like(frames_folder(whole))
    for leaf in frames.exclude(keys.IMAGE).values(include_nested=True, leaves_only=True):
        give_blocks(leaf.filename)
    tokenizer = HashTokenizer(max_length=data.max_words)
    for episode, record in zip(episodes, kept, strict=True):
        span = slice(episode.start, episode.stop)
        tokens, mask = tokenizer(record["instruction"])
        frames[keys.TOKENS][span] = tokens
        frames[keys.TOKEN_MASK][span] = mask
        frames[keys.TASK_ID][span] = episode.task_id
        frames[EPISODE][span] = episode.index
    index = Index(
        complete=True,
        simulator=SIMULATOR,
        image_size=(size, size),
        state_dim=None,
        action_dim=None,
        action_repeat=1,
        num_frames=total,
        tasks=tasks,
        episodes=episodes,
    )
    write_index(whole, index)


def _tasks(records: list[Record]) -> tuple[Task, ...]:
    """A task for each name, or instruction, with the instruction that it had first."""
    first: dict[str, str] = {}
    for record in records:
        first.setdefault(record["task"] or record["instruction"], record["instruction"])
    return tuple(Task(i, name, sentence) for i, (name, sentence) in enumerate(first.items()))


def _episodes(
    data: DataConfig, records: list[Record], task_ids: Mapping[str, int]
) -> tuple[Episode, ...]:
    ids = [task_ids[record["task"] or record["instruction"]] for record in records]
    named = any(record["split"] == "test" for record in records)
    open_places = [
        place for place, record in enumerate(records) if not named and record["split"] is None
    ]
    held_out: set[int] = set()
    if data.held_out:
        groups = [(ids[place], records[place]["success"] is False) for place in open_places]
        drawn = held_out_places(groups, data.held_out, torch.Generator().manual_seed(0))
        held_out = {open_places[number] for number in drawn}
    episodes, start = [], 0
    for place, record in enumerate(records):
        stop = start + record["frames"]
        split = "test" if place in held_out else record["split"] or "train"
        episodes.append(
            Episode(
                index=place,
                task_id=ids[place],
                start=start,
                stop=stop,
                success=record["success"],
                split=split,
                source=record["name"],
            )
        )
        start = stop
    return tuple(episodes)
